//! Version 2: one directory.

use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::files::{make as make_dir, patiently, read, set_cpuset, write, write_if_there};
use super::v1::SANDBOX_TASKS;
use crate::failure::{Failure, Result};

/// Makes a cgroup, with every controller that its ancestors may hand down.
pub fn make(dir: &Path) -> Result<()> {
    make_dir(dir)?;
    let mut above: Vec<&Path> =
        dir.ancestors().skip(1).take_while(|d| d.join("cgroup.subtree_control").exists()).collect();
    above.reverse();
    for parent in above {
        for controller in read(parent, "cgroup.controllers").unwrap_or_default().split_whitespace() {
            let on = read(parent, "cgroup.subtree_control")
                .is_some_and(|all| all.split_whitespace().any(|c| c == controller));
            if !on && let Err(e) = write(parent, "cgroup.subtree_control", format!("+{controller}")) {
                log::debug!("{e}");
            }
        }
    }
    Ok(())
}

/// Writes limits.
pub fn set(dir: &Path, resources: &LinuxResources) -> Result<()> {
    if let Some(memory) = resources.memory() {
        set_memory(dir, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        set_cpu(dir, cpu)?;
    }
    match resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit) {
        None | Some(0) => {}
        Some(n) if n < 0 => write(dir, "pids.max", "max")?,
        Some(n) => write(dir, "pids.max", n.max(SANDBOX_TASKS))?,
    }
    if let Some(io) = resources.block_io() {
        set_io(dir, io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        write_if_there(dir, &format!("hugetlb.{}.max", limit.page_size()), limit.limit())?;
    }
    for (file, value) in resources.unified().iter().flatten() {
        if file.contains('/') {
            return Err(crate::oci::refused("linux.resources.unified", format!("`{file}` is a path")));
        }
        write(dir, file, value)?;
    }
    Ok(())
}

fn or_max(n: i64) -> String {
    if n < 0 { "max".into() } else { n.to_string() }
}

fn set_memory(dir: &Path, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().filter(|&n| n != 0);
    if let Some(n) = limit {
        write(dir, "memory.max", or_max(n))?;
    }
    // Version 1 counts memory and swap together, version 2 swap alone.
    if let Some(swap) = memory.swap().filter(|&n| n != 0) {
        let alone = if swap < 0 { -1 } else { swap.saturating_sub(limit.unwrap_or(0)).max(0) };
        write_if_there(dir, "memory.swap.max", or_max(alone))?;
    }
    if let Some(n) = memory.reservation().filter(|&n| n != 0) {
        write(dir, "memory.low", or_max(n))?;
    }
    Ok(())
}

/// `cpu.shares` (2..262144, 1024 usual) as `cpu.weight` (1..10000, 100 usual), in the way all runtimes do it.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

fn set_cpu(dir: &Path, cpu: &LinuxCpu) -> Result<()> {
    if let Some(n) = cpu.shares().filter(|&n| n != 0) {
        write(dir, "cpu.weight", weight(n))?;
    }
    let (quota, period) = (cpu.quota().filter(|&n| n != 0), cpu.period().filter(|&n| n != 0));
    if quota.is_some() || period.is_some() {
        let quota = quota.map(or_max).or_else(|| read(dir, "cpu.max")?.split(' ').next().map(str::to_owned));
        write(dir, "cpu.max", format!("{} {}", quota.unwrap_or_else(|| "max".into()), period.unwrap_or(100_000)))?;
    }
    if let Some(n) = cpu.burst() {
        write_if_there(dir, "cpu.max.burst", n)?;
    }
    if let Some(n) = cpu.idle() {
        write_if_there(dir, "cpu.idle", n)?;
    }
    set_cpuset(dir, cpu)
}

fn set_io(dir: &Path, io: &LinuxBlockIo) -> Result<()> {
    if let Some(weight) = io.weight().filter(|&n| n != 0) {
        write_if_there(dir, "io.bfq.weight", weight)?;
    }
    let throttles = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, list) in throttles {
        for device in list.iter().flatten() {
            write(dir, "io.max", format!("{}:{} {key}={}", device.major(), device.minor(), device.rate()))?;
        }
    }
    Ok(())
}

/// Holds or releases all tasks.
pub fn freeze(dir: &Path, frozen: bool) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    write(dir, "cgroup.freeze", u8::from(frozen))?;
    let wanted = format!("frozen {}", u8::from(frozen));
    let done = patiently(|| read(dir, "cgroup.events").is_some_and(|text| text.lines().any(|line| line == wanted)));
    if done { Ok(()) } else { Err(Failure::runtime(format!("cgroup {}: not {wanted} in time", dir.display()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_in_version_2_s_words() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["memory.swap.max", "cpu.max"] {
            std::fs::write(dir.path().join(file), "max 100000").unwrap();
        }
        let resources = serde_json::from_value(serde_json::json!({
            "memory": { "limit": 1000, "swap": 1500, "reservation": -1 },
            "cpu": { "shares": 1024, "quota": 5000 }, "pids": { "limit": 3 },
        }))
        .unwrap();
        set(dir.path(), &resources).unwrap();
        let read = |file| super::read(dir.path(), file).unwrap();
        assert_eq!(
            (read("memory.max"), read("memory.swap.max"), read("memory.low")),
            ("1000".into(), "500".into(), "max".into())
        );
        assert_eq!(
            (read("cpu.weight"), read("cpu.max"), read("pids.max")),
            ("39".into(), "5000 100000".into(), "512".into())
        );
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
    }
}
