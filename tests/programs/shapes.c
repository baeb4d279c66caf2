/* Frames of every shape that a C compiler makes, each below the same leaf.
 *
 * The call chains are those of `tests/truth/rows/own.rs`: leaf first, every call in its own function, no call made a jump
 * but the one that is meant to be. Each turn spends about the same time in each shape.
 * Usage: shapes SECONDS
 */
#include <alloca.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEEP __attribute__((noinline))
/* Behind a call: keeps it from becoming a jump. */
#define STAY(value) __asm__ volatile("" : "+r"(value))

static volatile uint64_t sink;
static volatile int rounds = 3000;
static char text[1 << 16], copy[1 << 16];

/* A leaf without a frame: its variables live below the stack pointer. */
KEEP uint64_t spin(uint64_t seed)
{
	volatile uint64_t state[4] = {seed, 1, 2, 3};
	for (int i = 0; i < rounds; i++)
		state[i & 3] = state[(i + 1) & 3] * 6364136223846793005u + 1442695040888963407u;
	return state[0];
}

/* A frame whose size is known at run time only. */
KEEP uint64_t sized(uint64_t seed)
{
	volatile char *room = alloca(16 + seed % 500);
	room[0] = (char)seed;
	uint64_t result = spin(seed) + (uint64_t)room[0];
	STAY(result);
	return result;
}

/* A frame aligned beyond what the ABI promises. */
KEEP uint64_t aligned(uint64_t seed)
{
	_Alignas(64) volatile uint64_t room[8];
	room[seed & 7] = seed;
	uint64_t result = spin(seed) + room[seed & 7];
	STAY(result);
	return result;
}

/* Both at once. */
KEEP uint64_t aligned_sized(uint64_t seed)
{
	_Alignas(128) volatile uint64_t room[16];
	volatile char *more = alloca(16 + seed % 300);
	room[seed & 15] = seed;
	more[0] = 1;
	uint64_t result = spin(seed) + room[seed & 15] + (uint64_t)more[0];
	STAY(result);
	return result;
}

/* Arguments on the stack, pushed before the call and dropped behind it. */
KEEP uint64_t takes_many(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h,
			 uint64_t i, uint64_t j)
{
	uint64_t result = spin(a ^ b ^ c ^ d ^ e) + f + g + h + i + j;
	STAY(result);
	return result;
}

KEEP uint64_t gives_many(uint64_t seed)
{
	uint64_t result = takes_many(seed, 1, 2, 3, 4, 5, seed + 6, 7, seed + 8, 9);
	STAY(result);
	return result;
}

/* Every register that a function has to keep. */
KEEP uint64_t saves_all(uint64_t seed)
{
	uint64_t a = seed, b = seed + 1, c = seed + 2, d = seed + 3, e = seed + 4, f = seed + 5, g = seed + 6;
	for (int i = 0; i < 2; i++) {
		__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f));
		g += spin(a) + b + c + d + e + f;
	}
	return g;
}

KEEP uint64_t variadic(uint64_t count, ...)
{
	va_list list;
	va_start(list, count);
	uint64_t sum = 0;
	for (uint64_t i = 0; i < count; i++)
		sum += va_arg(list, uint64_t);
	va_end(list);
	sum = spin(sum);
	STAY(sum);
	return sum;
}

/* 10 kB: the frame is larger than a page. */
KEEP uint64_t large(uint64_t seed)
{
	volatile char room[10000];
	room[seed % sizeof room] = 1;
	uint64_t result = spin(seed) + (uint64_t)room[seed % sizeof room];
	STAY(result);
	return result;
}

/* Called back from the C library. */
KEEP int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
	sink += spin(left);
	return (left > right) - (left < right);
}

KEEP uint64_t sorts(uint64_t seed)
{
	uint64_t list[3] = {seed, seed / 3, seed * 7};
	qsort(list, 3, sizeof list[0], compare);
	return list[0];
}

/* The call is a jump where the compiler optimises: the caller is then nowhere to be found. */
KEEP uint64_t jumped_to(uint64_t seed)
{
	uint64_t result = spin(seed);
	STAY(result);
	return result;
}

KEEP uint64_t jumps(uint64_t seed)
{
	return jumped_to(seed + 1);
}

__attribute__((cold, noinline)) uint64_t rare(uint64_t seed)
{
	uint64_t result = spin(seed + 11);
	STAY(result);
	return result;
}

/* Its unlikely half moves away from it, into a part of its own. */
KEEP uint64_t hot_and_cold(uint64_t seed)
{
	volatile uint64_t room[5];
	room[seed % 5] = seed;
	if (__builtin_expect((seed & 0x3f) == 0x3f, 0)) {
		room[1] = rare(seed);
		for (int i = 0; i < rounds; i++)
			room[i % 5] += rare(room[(i + 1) % 5]) + (uint64_t)i, i += rounds / 2;
	}
	room[2] = spin(room[3]);
	return room[2] + 1;
}

/* Ten deep. */
KEEP uint64_t descends(uint64_t seed, int depth)
{
	volatile char room[24];
	room[depth] = 1;
	uint64_t result = depth == 1 ? spin(seed) : descends(seed, depth - 1);
	return result + (uint64_t)room[depth];
}

/* The library's own loops, written by hand in assembly. */
KEEP uint64_t copies(uint64_t seed)
{
	memset(text, (int)(seed | 1), sizeof text - 1);
	memcpy(copy, text, sizeof text);
	return strlen(copy) + (uint64_t)memcmp(copy, text, sizeof text);
}

static uint64_t (*volatile pointer)(uint64_t) = jumped_to;

KEEP uint64_t by_pointer(uint64_t seed)
{
	uint64_t result = pointer(seed);
	STAY(result);
	return result;
}

KEEP void run(void)
{
	for (uint64_t seed = 1;; seed = seed * 6364136223846793005u + 1442695040888963407u) {
		uint64_t sum = sized(seed >> 7) + aligned(seed) + aligned_sized(seed >> 9) + gives_many(seed) + saves_all(seed);
		sum += variadic(9, seed, seed, seed, seed, seed, seed, seed, seed, seed) + large(seed >> 3) + sorts(seed);
		sum += jumps(seed) + hot_and_cold(seed >> 5) + descends(seed, 10) + copies(seed) + by_pointer(seed);
		sink += sum;
		if (rounds == 0)
			return;
	}
}

/* With a second argument it ends by itself, for compilers that learn from a run. */
static void end(int signal)
{
	(void)signal;
	rounds = 0;
}

int main(int argc, char **argv)
{
	unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 60;
	if (argc > 2) {
		extern void (*signal(int, void (*)(int)))(int);
		signal(14, end);
	}
	alarm(seconds);
	run();
	return 0;
}
