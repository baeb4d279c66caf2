/*
 * Frames of every kind that a compiler or the system makes, for recording and comparing: MODE.
 *
 * drap: realigned stack; alloca: frame of changing size; altstack: handler on a stack of its own; nested: a signal that
 * interrupts a handler; plt: the first call through a lazily bound stub, after a line of input; recursion: 900 frames;
 * blocked: waits in a system call; chain: plain functions. Each ends in `stay`, spinning, and says so with one line
 * before. calls: calls them for ever, so that each instruction of theirs can be stepped through.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile uint64_t sink;
static const char *mode;

__attribute__((noinline)) void stay(void)
{
	if (!strcmp(mode, "calls"))
		return;
	puts("ready");
	fflush(stdout);
	for (;;)
		sink++;
}

__attribute__((noinline)) void use(void *at)
{
	memset(at, 1, 32);
	sink += *(volatile unsigned char *)at;
}

__attribute__((noinline)) void grows(int bytes)
{
	volatile char *room = alloca(bytes);

	use((void *)room);
	stay();
	sink += room[0];
}

/* Aligned beyond what the caller promises, and of changing size: the frame is found through a third register. */
__attribute__((noinline)) void aligned(int bytes, int a, int b, int c, int d, int e, int on_the_stack)
{
	_Alignas(64) volatile char table[128];
	volatile char *room = alloca(bytes);

	use((void *)room);
	use((void *)table);
	sink += a + b + c + d + e + on_the_stack;
	stay();
	sink += room[0] + table[1];
}

static void on_signal(int number)
{
	if (!strcmp(mode, "nested") && number == SIGUSR1)
		raise(SIGUSR2);
	stay();
	sink++;
}

__attribute__((noinline)) void interrupted(int flags)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
	stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};

	if (flags && sigaltstack(&stack, 0))
		exit(1);
	sigaction(SIGUSR1, &action, 0);
	sigaction(SIGUSR2, &action, 0);
	raise(SIGUSR1);
	sink++;
}

__attribute__((noinline)) void stubs(void)
{
	puts("ready");
	fflush(stdout);
	getchar();
	for (;;)
		sink += getppid();
}

/* No local, many, in registers that the caller wants back. */
__attribute__((noinline)) uint64_t chain_d(int depth)
{
	stay();
	return sink + depth;
}

__attribute__((noinline)) uint64_t chain_c(int depth)
{
	volatile uint64_t many[40];

	many[depth & 31] = depth;
	return chain_d(depth + 1) + many[depth & 31];
}

__attribute__((noinline)) uint64_t chain_b(int depth)
{
	uint64_t a = sink, b = sink, c = sink, d = sink, e = sink, f = sink;

	return chain_c(depth + 1) + a * b * c * d * e * f;
}

__attribute__((noinline)) uint64_t leaf(uint64_t a)
{
	return a * 3 + sink;
}

__attribute__((noinline)) void calls(void)
{
	puts("ready");
	fflush(stdout);
	for (;;) {
		sink += chain_b(1) + leaf(sink);
		grows(100 + (sink & 63));
		aligned(100, 1, 2, 3, 4, 5, 6);
	}
}

__attribute__((noinline)) uint64_t recursion(int depth)
{
	if (depth == 0) {
		stay();
		return 0;
	}
	return recursion(depth - 1) + sink;
}

__attribute__((noinline)) void blocked(void)
{
	puts("ready");
	fflush(stdout);
	pause();
	sink++;
}

int main(int count, char **argument)
{
	mode = count > 1 ? argument[1] : "";
	if (!strcmp(mode, "drap"))
		aligned(100 + count, 1, 2, 3, 4, 5, 6);
	else if (!strcmp(mode, "alloca"))
		grows(1000 + count);
	else if (!strcmp(mode, "altstack"))
		interrupted(SA_ONSTACK);
	else if (!strcmp(mode, "nested"))
		interrupted(0);
	else if (!strcmp(mode, "plt"))
		stubs();
	else if (!strcmp(mode, "recursion"))
		sink += recursion(900);
	else if (!strcmp(mode, "chain"))
		sink += chain_b(1);
	else if (!strcmp(mode, "calls"))
		calls();
	else if (!strcmp(mode, "blocked"))
		blocked();
	return 1;
}
