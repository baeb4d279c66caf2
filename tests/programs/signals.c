/* Signals that interrupt a loop at any instruction, and each other.
 *
 * SIGPROF comes by CPU time and runs `tick` > `tick_work`; inside it SIGUSR1 is raised now and then and runs `nested` >
 * `nested_work` on top. With ALTERNATE = 1 the handlers have a stack of their own.
 * Usage: signals SECONDS ALTERNATE
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline))
#define STAY(value) __asm__ volatile("" : "+r"(value))

static volatile uint64_t sink;

KEEP uint64_t tick_work(uint64_t seed)
{
	for (int i = 0; i < 300000; i++)
		seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed;
}

KEEP uint64_t nested_work(uint64_t seed)
{
	for (int i = 0; i < 300000; i++)
		seed = seed * 2862933555777941757u + 3037000493u;
	return seed;
}

KEEP void nested(int number)
{
	uint64_t result = nested_work((uint64_t)number);
	STAY(result);
	sink += result;
}

KEEP void tick(int number)
{
	uint64_t result = tick_work((uint64_t)number);
	STAY(result);
	sink += result;
	static unsigned turns;
	if (++turns % 4 == 0)
		pthread_kill(pthread_self(), SIGUSR1);
}

/* What is interrupted: a frame that comes and goes, so that signals hit prologues and epilogues too. */
KEEP uint64_t busy_leaf(uint64_t a, uint64_t b)
{
	volatile uint64_t room[6] = {a, b};
	return room[a % 6] + room[b % 6];
}

KEEP uint64_t busy(uint64_t seed)
{
	uint64_t sum = 0;
	for (int i = 0; i < 1000; i++)
		sum += busy_leaf(seed + (uint64_t)i, sum);
	return sum;
}

int main(int argc, char **argv)
{
	alarm(argc > 1 ? (unsigned)atoi(argv[1]) : 60);
	int alternate = argc > 2 && argv[2][0] == '1';
	static char room[1 << 16];
	stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
	struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART | (alternate ? SA_ONSTACK : 0)};
	struct sigaction inner = {.sa_handler = nested, .sa_flags = SA_RESTART | (alternate ? SA_ONSTACK : 0)};
	struct itimerval often = {{0, 4000}, {0, 4000}};
	if ((alternate && sigaltstack(&stack, 0)) || sigaction(SIGPROF, &action, 0) || sigaction(SIGUSR1, &inner, 0) ||
	    setitimer(ITIMER_PROF, &often, 0))
		return 1;
	for (;;)
		sink += busy(sink);
}
