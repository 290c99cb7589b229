//! `update`.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::Context;
use crate::cli::oci::UpdateArgs;
use crate::control::client::{Connection, PATIENCE};
use crate::control::protocol::Request;
use crate::failure::{Failure, Result};
use crate::oci::{resources, spec};
use crate::state::Status;

/// `nanovisor update`.
///
/// # Errors
/// No such container, or it has ended; a limit that the host does not take.
pub fn update(cx: &Context, args: &UpdateArgs) -> Result<()> {
    if args.l3_cache_schema.is_some() || args.mem_bw_schema.is_some() {
        return Err(Failure::runtime("Intel RDT is not supported"));
    }
    let wanted = match &args.resources {
        Some(path) => read(path)?,
        None => from_flags(args)?,
    };
    apply(cx, &args.id, &wanted)
}

/// Changes the limits of a container to these; those that are not given stay.
///
/// # Errors
/// As `update`.
pub fn apply(cx: &Context, id: &str, wanted: &LinuxResources) -> Result<()> {
    let mut container = cx.store.take(id)?;
    if container.record.status() == Status::Stopped {
        return Err(Failure::runtime("container not running"));
    }
    if let Some(place) = &container.record.cgroup {
        place.set(Some(wanted))?;
    }
    let limits = resources::limits(Some(wanted));
    if !container.record.paused {
        let directory = cx.store.socket_directory(&container.record)?;
        let mut connection = Connection::open(directory.as_fd(), &container.record.inside)?;
        connection.call(Request::Update(limits), &[], PATIENCE)?;
    }
    remember(&mut container.record.spec, wanted)?;
    container.save()
}

fn read(path: &Path) -> Result<LinuxResources> {
    let mut text = Vec::new();
    let failed = |e: std::io::Error| Failure::runtime(format!("--resources {}: {e}", path.display()));
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map_err(failed)?;
    } else {
        text = std::fs::read(path).map_err(failed)?;
    }
    spec::parse("--resources", &text)
}

fn from_flags(args: &UpdateArgs) -> Result<LinuxResources> {
    let mut all = json!({});
    let mut set = |part: &str, key: &str, value: Value| {
        if !value.is_null() {
            all[part][key] = value;
        }
    };
    set("memory", "limit", json!(args.memory));
    set("memory", "reservation", json!(args.memory_reservation));
    set("memory", "swap", json!(args.memory_swap));
    set("cpu", "shares", json!(args.cpu_share));
    set("cpu", "quota", json!(args.cpu_quota));
    set("cpu", "period", json!(args.cpu_period));
    set("cpu", "realtimePeriod", json!(args.cpu_rt_period));
    set("cpu", "realtimeRuntime", json!(args.cpu_rt_runtime));
    set("cpu", "cpus", json!(args.cpuset_cpus));
    set("cpu", "mems", json!(args.cpuset_mems));
    set("pids", "limit", json!(args.pids_limit));
    set("blockIO", "weight", json!(args.blkio_weight));
    serde_json::from_value(all).map_err(|e| Failure::runtime(e.to_string()))
}

/// The container's own configuration says what is in force now.
fn remember(spec: &mut oci_spec::runtime::Spec, wanted: &LinuxResources) -> Result<()> {
    let failed = |e: serde_json::Error| Failure::runtime(e.to_string());
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut now = serde_json::to_value(linux.resources().clone().unwrap_or_default()).map_err(failed)?;
    merge(&mut now, serde_json::to_value(wanted).map_err(failed)?);
    linux.set_resources(Some(serde_json::from_value(now).map_err(failed)?));
    Ok(())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_resources_and_are_remembered() {
        let args =
            UpdateArgs { memory: Some(1 << 30), cpu_quota: Some(5000), pids_limit: Some(9), ..UpdateArgs::default() };
        let wanted = from_flags(&args).unwrap();
        assert_eq!(wanted.memory().unwrap().limit(), Some(1 << 30));
        let mut spec = oci_spec::runtime::Spec::default();
        let before: LinuxResources = serde_json::from_value(json!({ "cpu": { "shares": 7 } })).unwrap();
        spec.linux_mut().as_mut().unwrap().set_resources(Some(before));
        remember(&mut spec, &wanted).unwrap();
        let after = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(
            (after.cpu().as_ref().unwrap().shares(), after.cpu().as_ref().unwrap().quota()),
            (Some(7), Some(5000))
        );
        assert_eq!(after.pids().unwrap().limit(), 9);
    }
}
