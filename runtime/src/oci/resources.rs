//! `linux.resources`, as far as the sandbox's own kernel keeps the limits; the host's cgroup keeps them too.

use oci_spec::runtime::LinuxResources;

use crate::sandbox::describe::LimitsConfig;

/// What the sandbox process needs for itself beyond what its guest is charged.
const MARGIN: u64 = 16 << 20;

/// The limits inside. The guest's memory limit lies below the cgroup's by what the sandbox itself needs, so that the guest meets
/// its own kernel's limit (and its OOM killer, which picks a guest process) before the host kills the whole sandbox.
#[must_use]
pub fn limits(resources: Option<&LinuxResources>) -> LimitsConfig {
    let Some(resources) = resources else { return LimitsConfig::default() };
    let positive = |n: i64| u64::try_from(n).ok().filter(|&n| n > 0);
    let memory = resources.memory().as_ref().and_then(|m| positive(m.limit()?));
    let cpu = resources.cpu().as_ref();
    let quota = cpu.and_then(|cpu| positive(cpu.quota()?));
    let period = cpu.and_then(oci_spec::runtime::LinuxCpu::period).filter(|&p| p > 0).unwrap_or(100_000);
    LimitsConfig {
        memory: memory.map(guest_memory),
        pids: resources.pids().as_ref().and_then(|pids| positive(pids.limit())),
        cpu_millis: quota.map(|quota| (quota.saturating_mul(1000) / period).max(1)),
    }
}

fn guest_memory(limit: u64) -> u64 {
    // Of a small limit at most half is the margin: the host's limit then decides.
    limit.saturating_sub(MARGIN.min(limit / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_taken_over() {
        let resources: LinuxResources = serde_json::from_value(serde_json::json!({
            "memory": { "limit": 268_435_456 }, "pids": { "limit": 7 }, "cpu": { "quota": 150_000, "period": 100_000 },
        }))
        .unwrap();
        let got = limits(Some(&resources));
        assert_eq!(got, LimitsConfig { memory: Some((256 - 16) << 20), pids: Some(7), cpu_millis: Some(1500) });
        let none: LinuxResources =
            serde_json::from_value(serde_json::json!({ "memory": { "limit": -1 }, "pids": { "limit": 0 } })).unwrap();
        assert_eq!(limits(Some(&none)), LimitsConfig::default());
        assert_eq!(limits(None), LimitsConfig::default());
    }
}
