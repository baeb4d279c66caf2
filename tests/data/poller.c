/*
 * An io_uring whose submission queue is polled by a thread of the kernel's, without a pause. With an argument: says by its
 * exit code whether the kernel gives such a ring, and ends.
 */
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	/* The poller sleeps after this many milliseconds without work: an hour. */
	struct io_uring_params params = {.flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 3600 * 1000};
	int ring = syscall(SYS_io_uring_setup, 8, &params);
	char *queue;

	(void)argv;
	if (ring < 0)
		return 1;
	if (argc > 1)
		return 0;
	/* Something to do, namely nothing (entry 0 is all zeros: IORING_OP_NOP); it begins to poll with the first work. */
	queue = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	if (queue == MAP_FAILED)
		return 1;
	*(unsigned *)(queue + params.sq_off.array) = 0;
	__atomic_store_n((unsigned *)(queue + params.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 0, IORING_ENTER_SQ_WAKEUP, 0, 0) < 0)
		return 1;
	for (;;)
		pause();
}
