/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which processes are sampled, decided before anything else is done for a tick. Nothing here costs anything where no
 * filter is set: the settings are constants for the verifier, which drops what they switch off.
 */
#pragma once

#include "maps.h"

#include <bpf/bpf_core_read.h>

const volatile struct abi_filter filter SEC(".rodata.filter");

/* Processes, names and cgroups that are sampled; the value says nothing. Kept by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ABI_MAX_CHOSEN);
	__type(key, struct abi_choice);
	__type(value, u32);
} chosen SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct kernfs_node {
	/* Since 5.5 a number, which is the inode number of the cgroup's directory. */
	u64 id;
};
struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};
struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};
struct css_set {
	/* By controller: the group of a hierarchy of version 1. */
	struct cgroup_subsys_state *subsys[1];
	/* The group of version 2. */
	struct cgroup *dfl_cgrp;
};
struct task_struct___filter {
	struct task_struct___filter *group_leader;
	/* CLOCK_MONOTONIC. */
	u64 start_time;
	char comm[16];
	struct css_set *cgroups;
};
#pragma clang attribute pop

/* Only names count: numbers are those of the running kernel. */
enum cgroup_subsys_id { memory_cgrp_id = 1, cpu_cgrp_id, pids_cgrp_id };

static __always_inline int is_chosen(u64 low, u64 kind)
{
	struct abi_choice choice = {.low = low, .high = kind << ABI_CHOICE_KIND_SHIFT};

	return bpf_map_lookup_elem(&chosen, &choice) != 0;
}

/* The task's group in the hierarchy in use, as controller state: those have parents in every hierarchy. */
static __always_inline struct cgroup_subsys_state *cgroup_of(struct task_struct___filter *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *state = 0;
	struct cgroup *group;
	u32 index;

	if (filter.hierarchy == ABI_HIERARCHY_UNIFIED) {
		group = BPF_CORE_READ(set, dfl_cgrp);
		return __builtin_preserve_access_index(&group->self);
	}
	if (filter.hierarchy == ABI_HIERARCHY_MEMORY)
		index = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	else if (filter.hierarchy == ABI_HIERARCHY_CPU)
		index = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
	else
		index = bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
	bpf_probe_read_kernel(&state, sizeof(state), __builtin_preserve_access_index(&set->subsys[0]) + index);
	return state;
}

/* Whether the task's group or one above it was chosen. */
static __always_inline int cgroup_is_chosen(struct task_struct___filter *task)
{
	struct cgroup_subsys_state *state = cgroup_of(task);

	for (int level = 0; level < ABI_CGROUP_LEVELS && state; level++) {
		if (is_chosen(BPF_CORE_READ(state, cgroup, kn, id), ABI_CHOICE_CGROUP))
			return 1;
		state = BPF_CORE_READ(state, parent);
	}
	return 0;
}

/* Whether a tick that hit this process is not wanted. */
static __always_inline int is_filtered(u32 pid)
{
	struct task_struct___filter *task, *leader;
	struct abi_choice name = {};

	if (!filter.choose && !filter.min_age_ns)
		return 0;
	task = (void *)bpf_get_current_task();
	leader = BPF_CORE_READ(task, group_leader);
	if (filter.min_age_ns && bpf_ktime_get_ns() - BPF_CORE_READ(leader, start_time) < filter.min_age_ns)
		return 1;
	if (!filter.choose)
		return 0;
	if (is_chosen(pid, ABI_CHOICE_PROCESS))
		return 0;
	/* As a string: old kernels leave the rest of an earlier name behind the end. */
	if (BPF_CORE_READ_STR_INTO(&name, leader, comm) > 0 && bpf_map_lookup_elem(&chosen, &name))
		return 0;
	return filter.hierarchy == ABI_HIERARCHY_NONE || !cgroup_is_chosen(task);
}
