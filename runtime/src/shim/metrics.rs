//! What a container uses, in the messages in which containerd's monitors read cgroups.

use std::collections::BTreeMap;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::reflect::{ReflectValueBox, RuntimeFieldType, RuntimeType};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{MessageField, MessageFull};

use super::events::any;
use crate::cgroup::Stats;
use crate::cgroup::stats::Usage;

/// The message for the version of cgroups that the host has.
#[must_use]
pub fn message(stats: &Stats, is_v2: bool) -> Any {
    if is_v2 { any(&second(stats)) } else { any(&first(stats)) }
}

fn first(stats: &Stats) -> v1::Metrics {
    let cpu = &stats.cpu;
    let usage = v1::CPUUsage {
        total: cpu.usage.total,
        kernel: cpu.usage.kernel,
        user: cpu.usage.user,
        per_cpu: cpu.usage.percpu.clone(),
        ..Default::default()
    };
    let throttling = v1::Throttle {
        periods: cpu.throttling.periods,
        throttled_periods: cpu.throttling.throttled_periods,
        throttled_time: cpu.throttling.throttled_time,
        ..Default::default()
    };
    let mut memory: v1::MemoryStat = by_name(&stats.memory.raw);
    memory.usage = entry(stats.memory.usage);
    memory.swap = entry(stats.memory.swap);
    memory.kernel = entry(stats.memory.kernel);
    memory.kernel_tcp = entry(stats.memory.kernel_tcp);
    v1::Metrics {
        pids: MessageField::some(v1::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit.unwrap_or(0),
            ..Default::default()
        }),
        cpu: MessageField::some(v1::CPUStat {
            usage: MessageField::some(usage),
            throttling: MessageField::some(throttling),
            ..Default::default()
        }),
        memory: MessageField::some(memory),
        ..Default::default()
    }
}

fn entry(usage: Usage) -> MessageField<v1::MemoryEntry> {
    MessageField::some(v1::MemoryEntry {
        limit: usage.limit,
        usage: usage.usage,
        max: usage.max,
        failcnt: usage.failcnt,
        ..Default::default()
    })
}

fn second(stats: &Stats) -> v2::Metrics {
    let cpu = &stats.cpu;
    let mut memory: v2::MemoryStat = by_name(&stats.memory.raw);
    memory.usage = stats.memory.usage.usage;
    memory.usage_limit = stats.memory.usage.limit;
    memory.max_usage = stats.memory.usage.max;
    memory.swap_usage = stats.memory.swap.usage;
    memory.swap_limit = stats.memory.swap.limit;
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit.unwrap_or(0),
            ..Default::default()
        }),
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: cpu.usage.total / 1000,
            user_usec: cpu.usage.user / 1000,
            system_usec: cpu.usage.kernel / 1000,
            nr_periods: cpu.throttling.periods,
            nr_throttled: cpu.throttling.throttled_periods,
            throttled_usec: cpu.throttling.throttled_time / 1000,
            ..Default::default()
        }),
        memory: MessageField::some(memory),
        memory_events: MessageField::some(v2::MemoryEvents { max: stats.memory.usage.failcnt, ..Default::default() }),
        ..Default::default()
    }
}

/// `memory.stat` by the names of its lines, which are the message's but for underscores.
fn by_name<M: MessageFull>(raw: &BTreeMap<String, u64>) -> M {
    let plain = |name: &str| name.replace('_', "");
    let raw: BTreeMap<String, u64> = raw.iter().map(|(name, value)| (plain(name), *value)).collect();
    let mut message = M::new();
    for field in M::descriptor().fields() {
        // Some lines have the name of a message: `swap` of version 1.
        let is_number = matches!(field.runtime_field_type(), RuntimeFieldType::Singular(RuntimeType::U64));
        if let (true, Some(value)) = (is_number, raw.get(&plain(field.name()))) {
            field.set_singular_field(&mut message, ReflectValueBox::U64(*value));
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::protobuf::Message;

    #[test]
    fn both_versions_carry_the_numbers() {
        let mut stats = Stats::default();
        stats.memory.raw =
            [("pgpgin".to_owned(), 3), ("total_rss".to_owned(), 4), ("anon".to_owned(), 5), ("swap".to_owned(), 9)]
                .into();
        stats.memory.usage.usage = 6;
        (stats.cpu.usage.total, stats.pids.current) = (7000, 8);
        let one = message(&stats, false);
        assert_eq!(one.type_url, "io.containerd.cgroups.v1.Metrics");
        let one = v1::Metrics::parse_from_bytes(&one.value).unwrap();
        assert_eq!((one.memory.pg_pg_in, one.memory.total_rss, one.memory.usage.usage), (3, 4, 6));
        assert_eq!((one.cpu.usage.total, one.pids.current), (7000, 8));
        let two = message(&stats, true);
        assert_eq!(two.type_url, "io.containerd.cgroups.v2.Metrics");
        let two = v2::Metrics::parse_from_bytes(&two.value).unwrap();
        assert_eq!((two.memory.anon, two.memory.usage, two.cpu.usage_usec, two.pids.current), (5, 6, 7, 8));
    }
}
