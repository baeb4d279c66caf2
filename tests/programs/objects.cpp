// Virtual calls through two bases, lambdas behind std::function, templates, a sort with a comparing lambda.
// Usage: objects SECONDS
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <unistd.h>
#include <vector>

#define KEEP __attribute__((noinline))
#define STAY(value) __asm__ volatile("" : "+r"(value))

static volatile uint64_t sink;

extern "C" KEEP uint64_t spin(uint64_t seed)
{
	for (int i = 0; i < 3000; i++)
		seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed;
}

struct First {
	virtual ~First() = default;
	virtual uint64_t first(uint64_t seed) = 0;
};

struct Second {
	uint64_t pad = 0;
	virtual ~Second() = default;
	virtual uint64_t second(uint64_t seed) = 0;
};

// `second` is called through a thunk: the object is a Second at another address than a First.
struct Both : First, Second {
	KEEP uint64_t first(uint64_t seed) override
	{
		uint64_t result = spin(seed);
		STAY(result);
		return result + pad;
	}
	KEEP uint64_t second(uint64_t seed) override
	{
		uint64_t result = spin(seed + pad);
		STAY(result);
		return result;
	}
};

template <int Levels> KEEP uint64_t nested(uint64_t seed)
{
	uint64_t result;
	if constexpr (Levels == 0)
		result = spin(seed);
	else
		result = nested<Levels - 1>(seed + 1);
	STAY(result);
	return result;
}

extern "C" KEEP uint64_t calls_function(const std::function<uint64_t(uint64_t)> &function, uint64_t seed)
{
	uint64_t result = function(seed);
	STAY(result);
	return result;
}

extern "C" KEEP uint64_t calls_first(First &object, uint64_t seed)
{
	uint64_t result = object.first(seed);
	STAY(result);
	return result;
}

extern "C" KEEP uint64_t calls_second(Second &object, uint64_t seed)
{
	uint64_t result = object.second(seed);
	STAY(result);
	return result;
}

extern "C" KEEP uint64_t sorts(uint64_t seed)
{
	std::array<uint64_t, 6> list{seed, seed / 3, seed * 7, seed / 11, seed * 13, seed / 17};
	std::sort(list.begin(), list.end(), [](uint64_t a, uint64_t b) KEEP { return (spin(a) & 0) + a < b; });
	return list[0];
}

int main(int argc, char **argv)
{
	alarm(argc > 1 ? static_cast<unsigned>(atoi(argv[1])) : 60);
	auto both = std::make_unique<Both>();
	std::array<uint64_t, 20> large{1, 2, 3};
	// Too large for the place inside std::function.
	std::function<uint64_t(uint64_t)> function = [large](uint64_t seed) KEEP { return spin(seed + large[seed % 20]) + 1; };
	for (uint64_t seed = 1;; seed = seed * 6364136223846793005u + 1442695040888963407u) {
		sink = sink + calls_first(*both, seed) + calls_second(*both, seed);
		sink = sink + calls_function(function, seed) + nested<4>(seed) + sorts(seed);
	}
}
