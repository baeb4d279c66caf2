/* Recursion of a known depth: `leaf`, then `down` DEPTH times, then `main`.
 * Usage: recursion SECONDS DEPTH
 */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define KEEP __attribute__((noinline))

static volatile uint64_t sink;

KEEP uint64_t leaf(uint64_t seed)
{
	for (int i = 0; i < 200000; i++)
		seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed;
}

KEEP uint64_t down(uint64_t seed, int depth)
{
	volatile char room[40];
	room[depth % 40] = 1;
	uint64_t result = depth > 1 ? down(seed + 1, depth - 1) : leaf(seed);
	return result + (uint64_t)room[depth % 40];
}

int main(int argc, char **argv)
{
	int depth = argc > 2 ? atoi(argv[2]) : 10;
	alarm(argc > 1 ? (unsigned)atoi(argv[1]) : 60);
	for (;;)
		sink += down(sink, depth);
}
