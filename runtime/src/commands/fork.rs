//! `fork`: a container of a template.

use super::create::{Making, Restoring, run_attached};
use super::{Context, pool, template, write_pid};
use crate::cli::oci::BundleArgs;
use crate::cli::snapshots::ForkArgs;
use crate::failure::Result;
use crate::hooks::{self, Kind};
use crate::oci::spec::{self, Bundle};
use crate::sandbox::config::{InstanceConfig, Life};
use crate::sandbox::watch;
use crate::state::Status;

/// `nanovisor fork`: the program's exit status, or 0 where it leaves.
///
/// # Errors
/// There is no such template; the bundle or the host does not let us.
pub fn fork(cx: &Context, args: &ForkArgs) -> Result<u8> {
    let record = template::look(&cx.store, &args.template)?;
    let bundle = match &args.bundle {
        Some(dir) => spec::load(dir)?,
        None => without_cgroup(Bundle { dir: record.bundle, root: record.rootfs, spec: record.spec }),
    };
    let Some(count) = args.count else { return one(cx, args, bundle, &args.id, args.detach) };
    for n in 1..=count {
        one(cx, args, bundle.clone(), &format!("{}-{n}", args.id), true)?;
    }
    Ok(0)
}

/// Instances of one template cannot all live in its cgroup.
fn without_cgroup(mut bundle: Bundle) -> Bundle {
    if let Some(mut linux) = bundle.spec.linux().clone() {
        linux.set_cgroups_path(None);
        bundle.spec.set_linux(Some(linux));
    }
    bundle
}

fn one(cx: &Context, args: &ForkArgs, bundle: Bundle, id: &str, detach: bool) -> Result<u8> {
    let blank = if detach && !args.no_pool { pool::take(cx, &bundle.spec) } else { None };
    let instance = InstanceConfig {
        forked: true,
        name: Some(id.to_owned()),
        hostname: args.hostname.clone(),
        machine_id: args.machine_id,
        metadata: args.metadata.clone(),
    };
    let fds = template::fetch(&cx.store, &args.template)?.into_fds();
    let restoring = Some(Restoring { fds, instance, blank });
    let bundle_args = BundleArgs {
        bundle: bundle.dir.clone(),
        console_socket: None,
        pid_file: args.pid_file.clone(),
        no_pivot: false,
        no_new_keyring: false,
        console_on_stdin: false,
        default_annotation: Vec::new(),
        preserve_fds: 0,
        id: id.to_owned(),
    };
    let life = if detach { Life::Detached } else { Life::Attached };
    let making = Making { cx, args: &bundle_args, life, restoring, bundle: Some(bundle) };
    if !detach {
        return run_attached(making, watch::block_signals()?, false);
    }
    let (container, process) = making.make()?;
    write_pid(args.pid_file.as_deref(), process.pid()).inspect_err(|_| {
        super::delete::destroy(&container.record);
    })?;
    hooks::run_all_the_same(Kind::Poststart, &container.record, Status::Running);
    Ok(0)
}
