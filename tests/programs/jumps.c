/* Control that leaves the order of calls: setjmp and longjmp out of a depth, contexts with stacks of their own, vfork.
 * Usage: jumps SECONDS longjmp|ucontext|vfork
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define KEEP __attribute__((noinline))
#define STAY(value) __asm__ volatile("" : "+r"(value))

static volatile uint64_t sink;
static jmp_buf back;
static ucontext_t outside, fibers[2];
static char stacks[2][1 << 16];

KEEP uint64_t spin(uint64_t seed)
{
	for (int i = 0; i < 20000; i++)
		seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed;
}

KEEP void deeper(uint64_t seed, int depth)
{
	volatile char room[48];
	room[depth] = 1;
	if (depth == 1) {
		sink += spin(seed);
		longjmp(back, 1);
	}
	deeper(seed + 1, depth - 1);
	sink += (uint64_t)room[depth];
}

__attribute__((noinline, noreturn)) void jumping(void)
{
	for (;;) {
		if (!setjmp(back))
			deeper(sink, 8);
		else
			sink += spin(sink);
	}
}

KEEP void fiber_step(void)
{
	uint64_t result = spin(sink);
	STAY(result);
	sink += result;
}

KEEP void fiber(int number)
{
	for (;;) {
		fiber_step();
		swapcontext(&fibers[number], number ? &outside : &fibers[1]);
	}
}

__attribute__((noinline, noreturn)) void switching(void)
{
	for (int i = 0; i < 2; i++) {
		getcontext(&fibers[i]);
		fibers[i].uc_stack.ss_sp = stacks[i];
		fibers[i].uc_stack.ss_size = sizeof stacks[i];
		makecontext(&fibers[i], (void (*)(void))fiber, 1, i);
	}
	for (;;) {
		sink += spin(sink);
		swapcontext(&outside, &fibers[0]);
	}
}

/* Runs in the child, on the stack and in the memory of the parent, which waits inside vfork. */
KEEP void child(void)
{
	for (int i = 0; i < 100; i++)
		sink += spin(sink);
	_exit(0);
}

__attribute__((noinline, noreturn)) void forking(void)
{
	for (;;) {
		pid_t pid = vfork();
		if (pid == 0)
			child();
		if (pid < 0 || waitpid(pid, 0, 0) != pid)
			exit(1);
	}
}

int main(int argc, char **argv)
{
	alarm(argc > 1 ? (unsigned)atoi(argv[1]) : 60);
	switch (argc > 2 ? argv[2][0] : 'l') {
	case 'l':
		jumping();
	case 'u':
		switching();
	case 'v':
		forking();
	}
	return 2;
}
