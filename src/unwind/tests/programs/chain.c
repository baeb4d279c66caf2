#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <math.h>
static volatile double sink;
static volatile long counter;
__attribute__((noinline)) static double leaf(long n) { double s = 0; for (long i = 1; i < n; i++) s += sin((double)i); return s; }
static int compare(const void *a, const void *b) { counter++; return *(const int *)a - *(const int *)b; }
__attribute__((noinline)) static void sort(void) { int v[256]; for (int i = 0; i < 256; i++) v[i] = (i * 7919) & 255; qsort(v, 256, sizeof v[0], compare); sink += v[3]; }
__attribute__((noinline)) static int chain(int depth) { if (depth == 0) { sink += leaf(2000); sort(); char *p = malloc(counter % 5000 + 1); memset(p, 1, 20); free(p); return 1; } return chain(depth - 1) + depth; }
static void on_tick(int signal) { sink += leaf(3000); sort(); }
static void *thread(void *unused) { for (int i = 0; i < 10000; i++) sink += chain(40); return 0; }
int main(void) {
    struct sigaction action = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
    sigaction(SIGALRM, &action, 0);
    struct itimerval every = { { 0, 1000 }, { 0, 1000 } };
    setitimer(ITIMER_REAL, &every, 0);
    pthread_t other;
    pthread_create(&other, 0, thread, 0);
    for (int i = 0; i < 10000; i++) sink += chain(40);
    pthread_join(other, 0);
    return 0;
}
