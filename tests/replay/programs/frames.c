/*
 * Frames of every kind that a compiler or the system makes, for recording and comparing: MODE.
 *
 * drap: realigned stack; alloca: frame of changing size; altstack: handler on a stack of its own; nested: a signal that
 * interrupts a handler; plt: calls through lazily bound stubs; recursion: 900 frames; blocked: waits in a system call.
 * Each ends in `stay`, spinning, and says so with one line before.
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
	for (;;)
		sink += getppid();
}

__attribute__((noinline)) uint64_t recursion(int depth)
{
	if (depth == 0)
		stay();
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
	else if (!strcmp(mode, "blocked"))
		blocked();
	return 1;
}
