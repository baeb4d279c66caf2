/*
 * A program with a known call chain: MODE DEPTH THREADS.
 *
 * Each thread calls step_a, step_b, step_c, step_d, step_a, ... DEPTH calls deep, each with another frame, and stays at the
 * end: spinning (user), in system calls (syscall), in the vDSO (vdso), or spinning in a signal handler (signal).
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *mode;
static volatile uint64_t sink;

__attribute__((noinline)) void spin(void)
{
	for (;;)
		sink++;
}

__attribute__((noinline)) void handler(int number)
{
	(void)number;
	spin();
}

__attribute__((noinline)) void leaf(void)
{
	if (!strcmp(mode, "syscall"))
		for (;;)
			sink += syscall(SYS_getppid);
	if (!strcmp(mode, "vdso"))
		for (;;) {
			struct timespec now;

			clock_gettime(CLOCK_MONOTONIC, &now);
			sink += now.tv_nsec;
		}
	if (!strcmp(mode, "signal")) {
		signal(SIGUSR1, handler);
		raise(SIGUSR1);
	}
	spin();
}

uint64_t step_a(int depth);

/* Different frames: no local, a few, many, one of changing size. What follows the call keeps it from being a jump. */
__attribute__((noinline)) uint64_t step_d(int depth)
{
	volatile char *room = __builtin_alloca(64 + depth % 7 * 16);

	room[0] = depth;
	if (depth <= 0)
		leaf();
	return step_a(depth - 1) + room[0];
}

__attribute__((noinline)) uint64_t step_c(int depth)
{
	volatile uint64_t many[40];

	many[depth & 31] = depth;
	if (depth <= 0)
		leaf();
	return step_d(depth - 1) + many[depth & 31];
}

__attribute__((noinline)) uint64_t step_b(int depth)
{
	uint64_t a = sink, b = sink, c = sink, d = sink, e = sink;

	if (depth <= 0)
		leaf();
	return step_c(depth - 1) + a * b * c * d * e;
}

__attribute__((noinline)) uint64_t step_a(int depth)
{
	if (depth <= 0)
		leaf();
	return step_b(depth - 1) + 1;
}

static void *run(void *depth)
{
	sink += step_a((int)(intptr_t)depth - 1);
	return 0;
}

/* A child that ends with its parent. With "exec" it becomes another program: this one, in its plain mode. */
static void fork_child(char **argument, int exec)
{
	if (fork())
		for (;;)
			pause();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	if (exec)
		execl("/proc/self/exe", "executed", "user", argument[2], (char *)0);
}

int main(int count, char **argument)
{
	int depth = count > 2 ? atoi(argument[2]) : 10, threads = count > 3 ? atoi(argument[3]) : 0;

	mode = count > 1 ? argument[1] : "user";
	for (int i = 0; i < threads; i++) {
		pthread_t thread;

		if (pthread_create(&thread, 0, run, (void *)(intptr_t)depth))
			return 1;
	}
	puts("ready");
	fflush(stdout);
	if (threads)
		pause();
	if (count > 4)
		fork_child(argument, !strcmp(argument[4], "exec"));
	sink += step_a(depth - 1);
	return 0;
}
