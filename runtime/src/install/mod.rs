//! `nanovisor install`: tells containerd and Docker that this runtime is there, and keeps all else that their files say.

mod containerd;
mod docker;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::cli::InstallArgs;
use crate::failure::{Failure, Result};
use crate::{output, shim};

/// What Kubernetes is told.
const RUNTIME_CLASS: &str = "\
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: nanovisor
handler: nanovisor
";

/// Changes the files, or with `--dry-run` prints what they would be.
///
/// # Errors
/// A file that is not what it should be; one that cannot be written.
pub fn run(args: &InstallArgs) -> Result<()> {
    let program = program()?;
    let mut told = link(&program, args.dry_run)?;
    told += &file(&args.containerd_config, args.dry_run, containerd::with_runtime)?;
    told += &file(&args.docker_config, args.dry_run, |text| docker::with_runtime(text, &program))?;
    told += "# for Kubernetes: kubectl apply -f - with\n";
    told += RUNTIME_CLASS;
    output::print(&told)
}

/// This program's file, by whatever name it was called.
fn program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|e| Failure::runtime(format!("/proc/self/exe: {e}")))
}

/// The shim's name beside this program.
fn link(program: &Path, dry_run: bool) -> Result<String> {
    let link = program.with_file_name(shim::NAME);
    if link.exists() {
        return Ok(format!("# {}: there\n", link.display()));
    }
    if !dry_run {
        let target = program.file_name().unwrap_or_default();
        symlink(target, &link).map_err(|e| Failure::runtime(format!("{}: {e}", link.display())))?;
    }
    Ok(format!("# {} -> {}: {}\n", link.display(), program.display(), if dry_run { "to be made" } else { "made" }))
}

/// Changes one file; answers what is to be told of it.
fn file(path: &Path, dry_run: bool, change: impl Fn(&str) -> std::result::Result<String, String>) -> Result<String> {
    let failed = |e: io::Error| Failure::runtime(format!("{}: {e}", path.display()));
    let before = match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(failed)?,
    };
    let after = change(&before).map_err(|e| Failure::runtime(format!("{}: {}", path.display(), e.trim())))?;
    if after == before {
        return Ok(format!("# {}: nanovisor is there\n", path.display()));
    }
    if dry_run {
        return Ok(format!("# {} would be:\n{after}\n", path.display()));
    }
    replace(path, &after).map_err(failed)?;
    Ok(format!("# {}: nanovisor added; restart its daemon\n", path.display()))
}

/// Whole or not at all, with the mode that it had.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = real.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mode = fs::metadata(&real).map_or(0o644, |m| m.permissions().mode() & 0o7777);
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(&real).map(drop).map_err(|e| e.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_once_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/config.toml");
        let change = |text: &str| Ok(if text.contains('x') { text.to_owned() } else { format!("{text}x") });
        assert!(file(&path, true, change).unwrap().contains("would be"));
        assert!(!path.exists());
        assert!(file(&path, false, change).unwrap().contains("added"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(file(&path, false, change).unwrap().contains("is there"));
        fs::write(&path, "a").unwrap();
        file(&path, false, change).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "ax");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(file(&path, false, |_| Err("not that".into())).unwrap_err().message.ends_with("config.toml: not that"));
    }
}
