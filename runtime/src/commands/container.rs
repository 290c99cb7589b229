//! A bundle -> a sandbox about to be started.

use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;

use super::Context;
use crate::failure::{Failure, Result};
use crate::gofer::Volume;
use crate::oci::annotations::{self, Wishes};
use crate::oci::mounts::{self, Plan, Root};
use crate::oci::namespaces::{self, Namespaces};
use crate::oci::pod;
use crate::oci::spec::Bundle;
use crate::oci::{process, refused, resources};
use crate::sandbox::config::{Life, Role, SandboxConfig};
use crate::sandbox::describe::{ContainerConfig, ProcessConfig, RootConfig};
use crate::sandbox::prepare::{self, Prepared};
use crate::sandbox::streams::Streams;
use crate::{image, platforms};

/// What config.json asks for, checked, before anything is made.
pub struct Wanted {
    /// Its first process.
    pub process: ProcessConfig,
    /// Namespaces by path.
    pub namespaces: Namespaces,
    /// The container whose sandbox it is to live in.
    pub pod: Option<String>,
    wishes: Wishes,
    plan: Plan,
    container: ContainerConfig,
}

impl Wanted {
    /// Reads everything that can be refused by its name.
    ///
    /// # Errors
    /// A field that is missing or wrong.
    pub fn read(id: &str, bundle: &Bundle) -> Result<Self> {
        let spec = &bundle.spec;
        crate::hooks::check(spec)?;
        let process = process::first(spec)?;
        let wishes = annotations::read(spec)?;
        let mut plan = mounts::plan(bundle)?;
        let root = match &plan.root {
            Root::Directory(_) if !wishes.images_root(plan.readonly) => RootConfig::Gofer { index: plan.serve_root()? },
            _ => RootConfig::Images(1),
        };
        let container = describe(id, spec, &plan, root, process.clone())?;
        Ok(Wanted { process, namespaces: namespaces::read(spec)?, pod: pod::sandbox(spec)?, wishes, plan, container })
    }

    /// The images that it shows.
    ///
    /// # Errors
    /// One that cannot be used.
    pub fn images(&self) -> Result<Vec<(Role, OwnedFd)>> {
        let mut fds = Vec::new();
        if matches!(self.container.root, RootConfig::Images(_)) {
            fds.push((Role::Image, OwnedFd::from(root_image(&self.plan)?)));
        }
        for path in &self.plan.images {
            fds.push((Role::MountImage, OwnedFd::from(image::open(path)?)));
        }
        Ok(fds)
    }

    /// A container for a sandbox that is there, with what its gofer is to serve.
    #[must_use]
    pub fn into_container(self, shares: [Option<String>; 4]) -> (ContainerConfig, Vec<Volume>) {
        (ContainerConfig { shares, ..self.container }, self.plan.trees)
    }

    /// Opens what a sandbox of its own needs of the host.
    ///
    /// # Errors
    /// An image that cannot be used; a platform that does not work.
    pub fn prepare(self, cx: &Context, life: Life, streams: Streams, more: Vec<(Role, OwnedFd)>) -> Result<Prepared> {
        let mut fds = more;
        fds.extend(self.images()?);
        let platform = platforms::choose(self.wishes.platform)?;
        fds.extend(platform.kvm.map(|fd| (Role::Kvm, fd)));
        let limit = self.container.limits.memory.filter(|&n| n >= 16 << 20);
        let config = SandboxConfig {
            fds: Vec::new(),
            platform: platform.kind,
            memory: prepare::memory(self.wishes.memory.or(limit))?,
            cpus: prepare::cpus(self.wishes.cpus),
            container: self.container,
            life,
            blank: false,
            instance: None,
            stop_after: false,
            strace: false,
            chaos: None,
            debug: cx.log_args.debug || self.wishes.debug,
            log_format: cx.log_args.log_format,
            inside_user: None,
            trial: crate::walls::Trial::default(),
        };
        Ok(Prepared { config, fds, streams, volumes: self.plan.trees })
    }
}

fn root_image(plan: &Plan) -> Result<std::fs::File> {
    match &plan.root {
        Root::Image(path) => image::open(path),
        Root::Directory(path) => image::cache::image_of(path).map(|(_, file)| file),
    }
}

fn describe(id: &str, spec: &Spec, plan: &Plan, root: RootConfig, process: ProcessConfig) -> Result<ContainerConfig> {
    let linux = spec.linux().as_ref();
    let mut container = ContainerConfig::new(id, root, process);
    container.readonly_root = plan.readonly;
    container.usual_mounts = false;
    container.shielded = true;
    container.mounts.clone_from(&plan.mounts);
    container.hostname = spec.hostname().clone().unwrap_or_default();
    container.domainname = spec.domainname().clone().unwrap_or_default();
    container.sysctls = sysctls(spec)?;
    let paths = |list: Option<&Option<Vec<String>>>| list.and_then(Clone::clone).unwrap_or_default();
    container.masked_paths = absolute("linux.maskedPaths", paths(linux.map(|l| l.masked_paths())))?;
    container.readonly_paths = absolute("linux.readonlyPaths", paths(linux.map(|l| l.readonly_paths())))?;
    container.devices = mounts::devices(linux)?;
    container.limits = resources::limits(linux.and_then(|l| l.resources().as_ref()));
    Ok(container)
}

fn sysctls(spec: &Spec) -> Result<Vec<(String, String)>> {
    let map = spec.linux().as_ref().and_then(|linux| linux.sysctl().clone()).unwrap_or_default();
    let mut all: Vec<(String, String)> = map.into_iter().collect();
    all.sort();
    match all.iter().find(|(key, _)| key.is_empty() || key.contains("..")) {
        Some((key, _)) => Err(refused("linux.sysctl", format!("`{key}` is no parameter"))),
        None => Ok(all),
    }
}

fn absolute(field: &str, paths: Vec<String>) -> Result<Vec<String>> {
    match paths.iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(refused(field, format!("`{path}` must be absolute"))),
        None => Ok(paths),
    }
}

/// What kept the first program from starting, in the words in which runc and those who call it know it.
#[must_use]
pub fn in_runc_s_words(failure: Failure, program: &str) -> Failure {
    use crate::failure::Status as S;
    let why = match failure.status {
        S::NotFound if program.contains('/') => format!("stat {program}: no such file or directory"),
        S::NotFound => "executable file not found in $PATH".to_owned(),
        S::NotExecutable => "permission denied".to_owned(),
        S::NoInterpreter => "no such file or directory".to_owned(),
        S::WrongFormat => "exec format error".to_owned(),
        _ => return failure,
    };
    let told = format!("unable to start container process: exec: {program:?}: {why} ({})", failure.message);
    Failure::new(failure.status, told)
}
