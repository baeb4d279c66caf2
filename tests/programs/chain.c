/* A program of known call chains and known shares.
 *
 * Every thread alternates between two chains that end in the same leaf:
 *   worker > run > alpha > beta > gamma_step > leaf_spin   about 60 %
 *   worker > run > delta > leaf_spin                       about 40 %
 * It measures the CPU time of each branch itself and prints the true shares at the end.
 * Build: cc -O2 -fomit-frame-pointer -fno-optimize-sibling-calls -pthread chain.c -o chain-c
 * Usage: chain-c SECONDS THREADS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KEEP __attribute__((noinline, noclone))

static double seconds;
static double branch_time[2][64];
static volatile uint64_t sink;

static double now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

KEEP uint64_t leaf_spin(uint64_t seed, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++)
		seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed;
}

/* The empty assembly keeps each call from becoming a jump. */
KEEP uint64_t gamma_step(uint64_t seed, unsigned rounds) { seed = leaf_spin(seed, rounds); __asm__ volatile("" : "+r"(seed)); return seed; }
KEEP uint64_t beta(uint64_t seed, unsigned rounds) { seed = gamma_step(seed + 1, rounds); __asm__ volatile("" : "+r"(seed)); return seed; }
KEEP uint64_t alpha(uint64_t seed, unsigned rounds) { seed = beta(seed + 2, rounds); __asm__ volatile("" : "+r"(seed)); return seed; }
KEEP uint64_t delta(uint64_t seed, unsigned rounds) { seed = leaf_spin(seed + 3, rounds); __asm__ volatile("" : "+r"(seed)); return seed; }

KEEP void run(int thread)
{
	uint64_t seed = thread + 1;
	double end = now(CLOCK_MONOTONIC) + seconds;
	double before = now(CLOCK_THREAD_CPUTIME_ID);
	while (now(CLOCK_MONOTONIC) < end) {
		/* Odd lengths, so that no sampling clock can keep step. */
		unsigned rounds = 100000 + (unsigned)(seed >> 48);
		seed = alpha(seed, rounds * 6 / 5);
		double middle = now(CLOCK_THREAD_CPUTIME_ID);
		seed = delta(seed, rounds * 4 / 5);
		double after = now(CLOCK_THREAD_CPUTIME_ID);
		branch_time[0][thread] += middle - before;
		branch_time[1][thread] += after - middle;
		before = after;
	}
	sink += seed;
}

KEEP void *worker(void *argument)
{
	run((int)(intptr_t)argument);
	__asm__ volatile("");
	return 0;
}

int main(int argc, char **argv)
{
	seconds = argc > 1 ? atof(argv[1]) : 10;
	int threads = argc > 2 ? atoi(argv[2]) : 2;
	if (threads < 1 || threads > 64)
		return 2;
	pthread_t ids[64];
	for (int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], 0, worker, (void *)(intptr_t)i))
			return 1;
	double time[2] = {0, 0};
	for (int i = 0; i < threads; i++) {
		pthread_join(ids[i], 0);
		time[0] += branch_time[0][i];
		time[1] += branch_time[1][i];
	}
	printf("{\"alpha\": %.6f, \"delta\": %.6f, \"cpu_seconds\": %.3f}\n", time[0] / (time[0] + time[1]),
	       time[1] / (time[0] + time[1]), time[0] + time[1]);
	return 0;
}
