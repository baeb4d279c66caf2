// Exceptions through frames that clean up; about a tenth of the time is spent inside the unwinder of the C++ runtime.
//
// Not more, for right before it lands, that unwinder overwrites the saved registers and the return address in its own
// frames (uw_install_context_1 of libgcc). In these few instructions the true callers are no longer in memory, and no
// oracle can say them: with nothing else to do, they are 1.5 % of the samples.
// Usage: exceptions SECONDS
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <unistd.h>

#define KEEP __attribute__((noinline))

static volatile uint64_t sink;

// Its destructor runs while the stack is unwound.
struct Guard {
	uint64_t value;
	explicit Guard(uint64_t value) : value(value) {}
	KEEP ~Guard()
	{
		uint64_t seed = value;
		for (int i = 0; i < 60000; i++)
			seed = seed * 6364136223846793005u + 1;
		sink = sink + seed;
	}
};

extern "C" {
KEEP uint64_t thrower(uint64_t seed)
{
	if (seed != 0)
		throw std::runtime_error("expected");
	return seed;
}

KEEP uint64_t guarded(uint64_t seed, int depth)
{
	Guard guard(seed);
	uint64_t result = depth > 1 ? guarded(seed + 1, depth - 1) : thrower(seed | 1);
	return result + guard.value;
}

// Catches, does something, throws on.
KEEP uint64_t rethrower(uint64_t seed)
{
	try {
		return guarded(seed, 6) + 1;
	} catch (const std::exception &error) {
		sink = sink + static_cast<unsigned char>(error.what()[0]);
		throw;
	}
}

KEEP void catcher()
{
	try {
		sink = sink + rethrower(sink);
	} catch (const std::runtime_error &) {
		sink = sink + 1;
	}
}
}

int main(int argc, char **argv)
{
	alarm(argc > 1 ? static_cast<unsigned>(atoi(argv[1])) : 60);
	for (;;)
		catcher();
}
