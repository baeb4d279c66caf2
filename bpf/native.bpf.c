// SPDX-License-Identifier: GPL-2.0
/*
 * The sampling program: one CPU clock tick in, one trace event or one counted reason out.
 *
 * Compiled twice. Modern: bpf_loop (5.17) and bpf_task_pt_regs (5.15). EVERFLAME_LEGACY: one frame is a global function,
 * which the verifier checks once (5.6), called from a bounded loop; runs from 5.10 on.
 */
#include "core.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "maps.h"
#include "mem.h"
#include "process.h"
#include "regs.h"
#include "search.h"
#include "filter.h"
#include "output.h"
#include "stack_copy.h"

char LICENSE[] SEC("license") = "GPL";

/* Changes of stack in one walk, to a lower one or to a goroutine's. Nested calls between Go and C make two each. */
#define MAX_SWITCHES 32
/* Largest frame that is believed to hang on a register which the callee has left alone. */
#define MAX_SECOND_FRAME 65536

/* The frame found next. Returns why there is none, or 0. */
static __always_inline u32 enter_caller(struct record *r, u64 pc, u64 sp, u64 fp)
{
	pc = code_pointer(pc);
	r->pc = pc;
	r->sp = sp;
	r->fp = fp;
	r->is_return = 1;
	r->is_second = r->is_leaf;
	r->is_leaf = 0;
	if (pc == 0)
		return END_COMPLETE;
	if (pc < ABI_LOWEST_CODE || pc >> ABI_USER_BITS)
		return END_BAD_RETURN_ADDRESS;
	return 0;
}

/*
 * Follows the frame pointer where no rule helps. `why` is the reason that stands when it leads nowhere; a chain that ends
 * with zero is no proof of the root, for the register may have been used for something else.
 */
static __always_inline u32 step_by_frame_pointer(struct record *r, u32 why)
{
	u64 fp = r->fp, next_fp, pc;

	if (fp < r->sp || fp - r->sp > ABI_MAX_APPROXIMATE_FRAME || fp & 7)
		return why;
	if (read_word(r, fp, &next_fp) || read_word(r, fp + 8, &pc))
		return why;
	if (enter_caller(r, pc, caller_sp(fp, next_fp), next_fp))
		return why;
	r->approximate = why;
	r->approximate_frames++;
	return 0;
}

/* The same by a rule, whose `ra` says whether it is a guess: then a zero is no proof of the root either. */
static __always_inline u32 enter_caller_by_rule(struct record *r, u64 pc, u64 sp, u64 fp, u8 ra)
{
	u32 why = enter_caller(r, pc, sp, fp);

	r->approximate = 0;
	if (!(ra & ABI_RA_GUESS))
		return why;
	r->approximate = END_NO_RULE;
	r->approximate_frames++;
	return why ? END_NO_RULE : 0;
}

/*
 * To the goroutine that Go's runtime works for on the system stack: the thread's g leads to m, m to the goroutine, which keeps
 * the registers it was left with. Without a goroutine the scheduler is at work, between two of them.
 */
static __always_inline u32 step_to_goroutine(struct record *r, const struct abi_rule *rule)
{
	u32 where = rule->fp_offset, saved = rule->ra_offset, why;
	u64 g, m, sp_and_pc[2], lr_and_fp[2];

	r->stack_reads += 4;
	if (read_go_g(r, rule, &g) || read_user(&m, sizeof(m), g + (where & 0xffff)) ||
	    read_user(&g, sizeof(g), m + (where >> 16)))
		return END_UNREADABLE_STACK;
	if (!g)
		return END_COMPLETE;
	if (read_user(sp_and_pc, sizeof(sp_and_pc), g + (saved & 0xffff)) ||
	    read_user(lr_and_fp, sizeof(lr_and_fp), g + (saved >> 16)))
		return END_UNREADABLE_STACK;
	/* Cleared when it runs again. */
	if (!sp_and_pc[0] || ++r->switches > MAX_SWITCHES)
		return END_NOT_GROWING;
	r->approximate = 0;
	why = enter_caller(r, sp_and_pc[1], sp_and_pc[0], lr_and_fp[1]);
	set_link_register(r, lr_and_fp[0]);
	return why;
}

/* Bits set. */
static __always_inline u32 count_bits(u32 bits)
{
	bits -= bits >> 1 & 0x55555555;
	bits = (bits & 0x33333333) + (bits >> 2 & 0x33333333);
	bits = (bits + (bits >> 4)) & 0x0f0f0f0f;
	return bits * 0x01010101 >> 24;
}

/* Applies one rule, `passed` bytes behind the row that names it. Returns 0 to go on, else the end reason. */
static __always_inline u32 step_by_rule(struct record *r, const struct abi_rule *rule, u32 passed)
{
	u64 sp = r->sp, fp = r->fp, cfa, next_fp = fp, pc = 0;
	s64 offset = rule->cfa_offset, ra_offset = rule->ra_offset;
	u8 kind = rule->cfa, fp_kind = rule->fp, ra = rule->ra;

	if (kind == ABI_CFA_SP) {
		cfa = sp + offset;
	} else if (kind == ABI_CFA_FP) {
		cfa = fp + offset;
	} else if (kind == ABI_CFA_PUSHES || kind == ABI_CFA_POPS) {
		u64 moved = 8 * (u64)count_bits((u32)rule->ra_offset & ((2U << passed) - 1));

		cfa = sp + offset + (kind == ABI_CFA_PUSHES ? moved : -moved);
		ra_offset = -8;
		if (passed < rule->slot)
			fp_kind = ABI_FP_UNCHANGED;
	} else if (kind == ABI_CFA_STOP) {
		return END_COMPLETE;
	} else if (kind == ABI_CFA_PLT) {
		cfa = sp + 8 + ((r->pc & 15) >= (u64)offset ? 8 : 0);
	} else if (kind == ABI_CFA_DEREF_SP || kind == ABI_CFA_DEREF_FP) {
		if (read_word(r, (kind == ABI_CFA_DEREF_SP ? sp : fp) + offset, &cfa))
			return END_UNREADABLE_STACK;
		cfa += ra_offset;
		ra_offset = -8;
	} else if (kind == ABI_CFA_REGISTER) {
		if (!(r->is_leaf | r->is_second))
			return END_NO_RULE;
		cfa = r->reg[rule->slot & 63] + offset;
		/* Hand-written code calls such that knows which registers it keeps; nothing says so, hence a guess. */
		if (!r->is_leaf) {
			if (cfa - sp > MAX_SECOND_FRAME)
				return END_NO_RULE;
			ra |= ABI_RA_GUESS;
		}
	} else if (kind == ABI_CFA_FRAME_POINTER) {
		if (!fp)
			return END_COMPLETE;
		if (read_word(r, fp, &next_fp) || read_word(r, fp + 8, &pc))
			return END_UNREADABLE_STACK;
		/* It may lead to another stack, which may lie lower: Go's system stack and cgo. A ring of such frames must end. */
		if (fp + 16 <= sp && ++r->switches > MAX_SWITCHES)
			return END_NOT_GROWING;
		return enter_caller_by_rule(r, pc, fp + 16, next_fp, rule->ra);
	} else if (kind == ABI_CFA_GOROUTINE) {
		return step_to_goroutine(r, rule);
	} else if (kind == ABI_CFA_SIGNAL) {
		if (read_signal_frame(r))
			return END_UNREADABLE_STACK;
		regs_to_frame(r);
		r->is_return = 0;
		r->is_leaf = 1;
		r->approximate = 0;
		return r->pc < ABI_LOWEST_CODE || r->pc >> ABI_USER_BITS ? END_BAD_RETURN_ADDRESS : 0;
	} else {
		return step_by_frame_pointer(r, END_NO_RULE);
	}

	/* The lower address first, so that one window serves both reads. */
	if (fp_kind == ABI_FP_AT_CFA) {
		if (read_word(r, cfa + rule->fp_offset, &next_fp))
			return END_UNREADABLE_STACK;
	} else if (fp_kind == ABI_FP_AT_FP) {
		if (read_word(r, fp + rule->fp_offset, &next_fp))
			return END_UNREADABLE_STACK;
	} else if (fp_kind == ABI_FP_UNKNOWN) {
		next_fp = 0;
	}
	if ((ra & ~ABI_RA_GUESS) == ABI_RA_AT_CFA) {
		if (read_word(r, cfa + ra_offset, &pc))
			return END_UNREADABLE_STACK;
		/* A frame holds its return address at least, so the stack pointer grows. */
		if (cfa <= sp)
			return END_NOT_GROWING;
	} else {
		if (!r->is_leaf)
			return END_NO_RULE;
		pc = r->reg[rule->slot & 63];
		if (cfa < sp)
			return END_NOT_GROWING;
	}
	return enter_caller_by_rule(r, pc, cfa, next_fp, ra);
}

/* Stores the current frame and finds its caller. Returns 0 to go on, else the end reason. */
static __always_inline u32 step(struct record *r)
{
	u64 flags = (u64)r->is_return << ABI_RETURN_ADDRESS_BIT |
		    (u64)(r->approximate != 0) << ABI_APPROXIMATE_BIT;
	u32 why = END_UNKNOWN_PROCESS, found = 0, n = r->steps;
	const struct abi_rule *rule;

	if (r->stamp) {
		found = find_rule(r, r->pc - r->is_return);
		why = found & ~FAILED;
		/* A frame pointer is believed only if it leads into code. */
		if (found == (FAILED | END_NO_MAPPING) && r->approximate)
			return r->approximate;
	}
	r->frames[(r->event.kernel_frames +
		   (n < ABI_INNER_FRAMES ? n : ABI_INNER_FRAMES | (n & (ABI_OUTER_FRAMES - 1)))) &
		  (ABI_FRAME_WORDS - 1)] = (r->pc & ((1ULL << ABI_USER_BITS) - 1)) | flags;
	r->steps = n + 1;
	if (!r->stamp || found & FAILED) {
		if (why == END_TABLE_MOVED)
			return why;
		return step_by_frame_pointer(r, why);
	}
	rule = get_rule(found & (ABI_MAX_RULES - 1));
	if (!rule)
		return END_NO_RULE;
	return step_by_rule(r, rule, found >> PASSED_SHIFT & ABI_MAX_PASSED);
}

#ifdef EVERFLAME_LEGACY

/* Global, so that the verifier checks it once; takes only a scalar, so that it may be global on 5.10. */
__attribute__((noinline)) int walk_one_frame(u32 round)
{
	struct record *r = get_record();
	u32 end;

	(void)round;
	if (!r)
		return 1;
	end = step(r);
	if (end == 0)
		return 0;
	r->event.end = end;
	return 1;
}

/* Two loops, for the verifier walks each round of a loop: 2 * 64 rounds instead of 4096. */
#define ROUND_FRAMES 64

__attribute__((noinline)) int walk_one_round(u32 round)
{
	for (u32 frame = 0; frame < ROUND_FRAMES; frame++)
		if (walk_one_frame(round + frame))
			return 1;
	return 0;
}

static __always_inline void walk(void)
{
	for (u32 round = 0; round < ABI_MAX_STEPS; round += ROUND_FRAMES)
		if (walk_one_round(round))
			break;
}

#else

static long walk_one_frame(u32 round, void *unused)
{
	struct record *r = get_record();
	u32 end;

	(void)round;
	(void)unused;
	if (!r)
		return 1;
	end = step(r);
	if (end == 0)
		return 0;
	r->event.end = end;
	return 1;
}

static __always_inline void walk(void)
{
	bpf_loop(ABI_MAX_STEPS, walk_one_frame, 0, 0);
}

#endif

static __always_inline void begin(struct record *r, u32 pid, u32 tid, struct counters *count)
{
	struct abi_process *process = find_process(pid, count);

	r->event.version = ABI_VERSION;
	r->event.end = END_TOO_DEEP;
	r->event.cpu = bpf_get_smp_processor_id();
	r->event.pid = pid;
	r->event.tid = tid;
	r->event.time_ns = bpf_ktime_get_ns();
	bpf_get_current_comm(r->event.comm, sizeof(r->event.comm));
	r->event.kernel_frames = 0;
	r->event.flags = 0;
	r->stamp = process ? process->stamp : 0;
	r->mapping_page = process ? process->page : 0;
	r->mapping_levels = process ? process->levels : 0;
	r->steps = 0;
	r->approximate = 0;
	r->switches = 0;
	r->window_words = 0;
	r->approximate_frames = 0;
	r->cache_misses = 0;
	r->mapping_misses = 0;
	r->stack_reads = 0;
}

static __always_inline void finish(struct record *r, struct perf_context *context, struct counters *count)
{
	u32 steps = r->steps, kept = steps, words;

	r->event.ring_start = 0;
	r->event.skipped = 0;
	if (steps > ABI_MAX_USER_FRAMES) {
		kept = ABI_MAX_USER_FRAMES;
		r->event.skipped = steps - kept;
		r->event.ring_start = steps & (ABI_OUTER_FRAMES - 1);
	}
	r->event.user_frames = kept;
	words = r->event.kernel_frames + kept;
	if (words > ABI_FRAME_WORDS)
		words = ABI_FRAME_WORDS;

	if (send_record(context, r, sizeof(r->event) + words * sizeof(u64)))
		count->value[COUNTER_RING_FULL]++;
	else
		count->value[COUNTER_STORED]++;
	count->value[COUNTER_USER_FRAMES] += steps;
	count->value[COUNTER_APPROXIMATE_FRAMES] += r->approximate_frames;
	count->value[COUNTER_CACHE_MISSES] += r->cache_misses;
	count->value[COUNTER_MAPPING_MISSES] += r->mapping_misses;
	count->value[COUNTER_STACK_READS] += r->stack_reads;
	if (r->event.end != END_COMPLETE && r->event.end != END_KERNEL_THREAD && r->event.end != END_USER_WORKER)
		count->value[COUNTER_TRUNCATED]++;
	count->value[COUNTER_KERNEL_NS] += bpf_ktime_get_ns() - r->event.time_ns;
}

SEC("perf_event")
int sample(struct perf_context *context)
{
	u64 thread = bpf_get_current_pid_tgid();
	u32 pid = thread >> 32;
	struct counters *count = get_counters();
	struct record *r;
	int mode;

	if (!count)
		return 0;
	count->value[COUNTER_TICKS]++;
	if (pid == 0 && !filter.idle) {
		count->value[COUNTER_IDLE]++;
		return 0;
	}
	if ((settings.only_pid && settings.only_pid != pid) || (pid && is_filtered(pid))) {
		count->value[COUNTER_FILTERED]++;
		return 0;
	}
	r = get_record();
	if (!r) {
		count->value[COUNTER_NO_RECORD]++;
		return 0;
	}
	begin(r, pid, thread, count);
	mode = read_user_regs(r, context);
	if (mode != IN_USER) {
		/* A user-mode sample has none: the call would cost and fail. */
		long bytes = bpf_get_stack(context, r->frames, ABI_MAX_KERNEL_FRAMES * sizeof(u64), 0);

		if (bytes > 0)
			r->event.kernel_frames = (u64)bytes / sizeof(u64) & 127;
	}
	if (mode == IN_KERNEL_THREAD)
		r->event.end = is_io_worker() ? END_USER_WORKER : END_KERNEL_THREAD;
	else if (mode == IN_KERNEL && r->pc == 0 && r->sp == 0)
		r->event.end = END_USER_WORKER;
	else if (regs_are_compat(&r->regs))
		r->event.end = END_COMPAT;
	else if (r->pc >> ABI_USER_BITS)
		r->event.end = END_BAD_RETURN_ADDRESS;
	else
		walk();
	if (!r->stamp && r->steps)
		r->event.end = END_UNKNOWN_PROCESS;
	if (is_for_later(r->event.end))
		send_stack_copy(r, context, count);
	finish(r, context, count);
	return 0;
}
