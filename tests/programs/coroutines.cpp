// C++20 coroutines: a generator that is resumed by its reader, and tasks that await each other and hand over directly.
// Usage: coroutines SECONDS
#include <coroutine>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <unistd.h>
#include <utility>

#define KEEP __attribute__((noinline))

static volatile uint64_t sink;

extern "C" KEEP uint64_t spin(uint64_t seed)
{
	for (int i = 0; i < 3000; i++)
		seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed;
}

struct Generator {
	struct promise_type {
		uint64_t value = 0;
		Generator get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
		std::suspend_always initial_suspend() noexcept { return {}; }
		std::suspend_always final_suspend() noexcept { return {}; }
		std::suspend_always yield_value(uint64_t next) noexcept { value = next; return {}; }
		void return_void() {}
		void unhandled_exception() { std::terminate(); }
	};
	std::coroutine_handle<promise_type> handle;
};

struct Task {
	struct promise_type {
		std::coroutine_handle<> waiting;
		uint64_t value = 0;
		Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
		std::suspend_always initial_suspend() noexcept { return {}; }
		// The end of a task continues who waits for it.
		struct Final {
			bool await_ready() noexcept { return false; }
			std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> done) noexcept
			{
				auto next = done.promise().waiting;
				return next ? next : std::noop_coroutine();
			}
			void await_resume() noexcept {}
		};
		Final final_suspend() noexcept { return {}; }
		void return_value(uint64_t result) { value = result; }
		void unhandled_exception() { std::terminate(); }
	};
	std::coroutine_handle<promise_type> handle;
	bool await_ready() { return false; }
	std::coroutine_handle<> await_suspend(std::coroutine_handle<> who)
	{
		handle.promise().waiting = who;
		return handle;
	}
	uint64_t await_resume()
	{
		uint64_t value = handle.promise().value;
		handle.destroy();
		return value;
	}
};

KEEP Generator numbers(uint64_t seed)
{
	for (;;) {
		seed = spin(seed);
		co_yield seed;
	}
}

KEEP Task inner(uint64_t seed)
{
	co_return spin(seed) + 1;
}

KEEP Task outer(uint64_t seed)
{
	uint64_t a = co_await inner(seed);
	uint64_t b = spin(a);
	uint64_t c = co_await inner(b);
	co_return a + b + c;
}

extern "C" KEEP void reads(Generator &generator)
{
	generator.handle.resume();
	sink = sink + generator.handle.promise().value;
}

extern "C" KEEP void drives(uint64_t seed)
{
	Task task = outer(seed);
	task.handle.resume();
	sink = sink + task.await_resume();
}

int main(int argc, char **argv)
{
	alarm(argc > 1 ? static_cast<unsigned>(atoi(argv[1])) : 60);
	Generator generator = numbers(1);
	for (;;) {
		reads(generator);
		drives(sink);
	}
}
