//! What a cgroup has used, in the form in which `runc events` prints it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files::{number, read, table};
use super::v1::dir_of;

/// `data` of an event of the type `stats`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// CPU.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block I/O: version 1's counters are left to the host's own tools.
    pub blkio: Empty,
    /// Huge pages: guests have none of the host's.
    pub hugetlb: Empty,
    /// Intel RDT: not used.
    pub intel_rdt: Empty,
    /// Network interfaces.
    pub network_interfaces: Option<Empty>,
}

/// `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Empty {}

/// CPU.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cpu {
    /// Time, nanoseconds.
    pub usage: CpuUsage,
    /// Held back by the quota.
    pub throttling: Throttling,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CpuUsage {
    /// All.
    pub total: u64,
    /// Of each CPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the host's kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// The quota.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Throttling {
    /// Periods that passed.
    pub periods: u64,
    /// Periods in which it was used up.
    #[serde(rename = "throttledPeriods")]
    pub throttled_periods: u64,
    /// Nanoseconds waited.
    #[serde(rename = "throttledTime")]
    pub throttled_time: u64,
}

/// Memory.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Memory {
    /// Of which page cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<u64>,
    /// All.
    pub usage: Usage,
    /// Memory and swap.
    pub swap: Usage,
    /// The host kernel's.
    pub kernel: Usage,
    /// Its network buffers.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Usage,
    /// `memory.stat`.
    pub raw: std::collections::BTreeMap<String, u64>,
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// At most.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Most ever.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// Tasks.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Pids {
    /// Now.
    pub current: u64,
    /// At most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn lookup(table: &[(String, u64)], key: &str) -> u64 {
    table.iter().find(|(name, _)| name == key).map_or(0, |(_, value)| *value)
}

/// Version 1.
pub fn v1(dirs: &[(Vec<String>, PathBuf)]) -> Stats {
    let mut stats = Stats::default();
    if let Some(dir) = dir_of(dirs, "cpuacct") {
        let percpu = read(dir, "cpuacct.usage_percpu").unwrap_or_default();
        let ticks = table(dir, "cpuacct.stat");
        // USER_HZ is 100 for user programs on every x86-64 kernel.
        let nanos = |key| lookup(&ticks, key).saturating_mul(10_000_000);
        stats.cpu.usage = CpuUsage {
            total: number(dir, "cpuacct.usage").unwrap_or(0),
            percpu: percpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
            kernel: nanos("system"),
            user: nanos("user"),
        };
    }
    if let Some(dir) = dir_of(dirs, "cpu") {
        let counts = table(dir, "cpu.stat");
        stats.cpu.throttling = Throttling {
            periods: lookup(&counts, "nr_periods"),
            throttled_periods: lookup(&counts, "nr_throttled"),
            throttled_time: lookup(&counts, "throttled_time"),
        };
    }
    if let Some(dir) = dir_of(dirs, "memory") {
        let usage = |kind: &str| Usage {
            limit: number(dir, &format!("memory{kind}.limit_in_bytes")).unwrap_or(0),
            usage: number(dir, &format!("memory{kind}.usage_in_bytes")).unwrap_or(0),
            max: number(dir, &format!("memory{kind}.max_usage_in_bytes")).unwrap_or(0),
            failcnt: number(dir, &format!("memory{kind}.failcnt")).unwrap_or(0),
        };
        let raw = table(dir, "memory.stat");
        stats.memory = Memory {
            cache: raw.iter().find(|(key, _)| key == "cache").map(|(_, n)| *n),
            usage: usage(""),
            swap: usage(".memsw"),
            kernel: usage(".kmem"),
            kernel_tcp: usage(".kmem.tcp"),
            raw: raw.into_iter().collect(),
        };
    }
    if let Some(dir) = dir_of(dirs, "pids") {
        stats.pids = Pids { current: number(dir, "pids.current").unwrap_or(0), limit: number(dir, "pids.max") };
    }
    stats
}

/// Version 2.
pub fn v2(dir: &Path) -> Stats {
    let mut stats = Stats::default();
    let cpu = table(dir, "cpu.stat");
    let nanos = |key| lookup(&cpu, key).saturating_mul(1000);
    stats.cpu.usage = CpuUsage {
        total: nanos("usage_usec"),
        percpu: Vec::new(),
        kernel: nanos("system_usec"),
        user: nanos("user_usec"),
    };
    stats.cpu.throttling = Throttling {
        periods: lookup(&cpu, "nr_periods"),
        throttled_periods: lookup(&cpu, "nr_throttled"),
        throttled_time: nanos("throttled_usec"),
    };
    let raw = table(dir, "memory.stat");
    let events = table(dir, "memory.events");
    stats.memory = Memory {
        cache: raw.iter().find(|(key, _)| key == "file").map(|(_, n)| *n),
        usage: Usage {
            limit: number(dir, "memory.max").unwrap_or(u64::MAX),
            usage: number(dir, "memory.current").unwrap_or(0),
            max: number(dir, "memory.peak").unwrap_or(0),
            failcnt: lookup(&events, "max"),
        },
        swap: Usage {
            limit: number(dir, "memory.swap.max").unwrap_or(u64::MAX),
            usage: number(dir, "memory.swap.current").unwrap_or(0),
            ..Usage::default()
        },
        raw: raw.into_iter().collect(),
        ..Memory::default()
    };
    stats.pids = Pids { current: number(dir, "pids.current").unwrap_or(0), limit: number(dir, "pids.max") };
    stats
}
