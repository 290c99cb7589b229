//! Pods: the annotations by which a container asks to live in another one's sandbox.

use std::collections::HashMap;

use oci_spec::runtime::Spec;

use super::refused;
use crate::failure::Result;

/// Ours: the container whose sandbox it is.
pub const ANNOTATION: &str = "dev.nanovisor.sandbox";

/// Those who speak of pods: the annotation that tells a pod's sandbox from its containers, and the one that names the
/// sandbox's container.
const THEIRS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];
/// What the first says of a container of a pod.
const CONTAINER: &str = "container";

/// The container whose sandbox this one is to live in; `None` for one with its own.
///
/// # Errors
/// A container of a pod that does not say of which.
pub fn sandbox(spec: &Spec) -> Result<Option<String>> {
    let none = HashMap::new();
    let all = spec.annotations().as_ref().unwrap_or(&none);
    for (kind, sandbox) in THEIRS {
        if all.get(kind).is_some_and(|kind| kind == CONTAINER) {
            let why = || refused(&format!("annotations.{sandbox}"), "missing in a container of a pod");
            return all.get(sandbox).filter(|id| !id.is_empty()).cloned().map(Some).ok_or_else(why);
        }
    }
    Ok(all.get(ANNOTATION).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(&str, &str)]) -> Result<Option<String>> {
        let mut spec = Spec::default();
        spec.set_annotations(Some(all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()));
        sandbox(&spec)
    }

    #[test]
    fn containers_of_pods_name_their_sandbox() {
        for (kind, sandbox) in THEIRS {
            assert_eq!(of(&[(kind, "container"), (sandbox, "p")]).unwrap().as_deref(), Some("p"));
            assert_eq!(of(&[(kind, "sandbox"), (sandbox, "p")]).unwrap(), None);
            assert!(of(&[(kind, "container")]).unwrap_err().message.contains(sandbox));
        }
        assert_eq!(of(&[(ANNOTATION, "p")]).unwrap().as_deref(), Some("p"));
        assert_eq!(of(&[]).unwrap(), None);
    }
}
