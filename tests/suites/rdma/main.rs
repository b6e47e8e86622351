//! Between two hosts over real verbs: in a virtual machine with Soft-RoCE where there is one, or on hosts that the user names.
//!
//! CONVOY_RDMA_VM is a script that runs its arguments inside a machine with the commands `hostA` and `hostB`.
//! CONVOY_RDMA_HOSTS is `COMMAND-A,COMMAND-B,ADDRESS-B`, for example `ssh node1,ssh node2,10.0.0.2`, with this source tree
//! at the same place on both.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the machine is when nothing is said.
const MACHINE: &str = "../../shared/rdma-vm/rdma-vm.sh";

#[test]
fn programs_over_verbs() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let exercise = here.join("suites/rdma/exercise.sh");
    let mut command = match (hosts(), machine(here)) {
        (Some([a, b, address]), _) => {
            let mut command = Command::new("bash");
            command.arg(exercise).env("HOST_A", a).env("HOST_B", b).env("ADDRESS_B", address);
            command
        }
        (None, Some(machine)) => {
            let mut command = Command::new(machine);
            command.arg("bash").arg(exercise).env("RDMA_VM_TIMEOUT", "600");
            command.env("HOST_A", "hostA").env("HOST_B", "hostB").env("ADDRESS_B", "10.9.0.2");
            command
        }
        (None, None) => {
            return convoy_tests::hosts::skip(
                "no RDMA here: name a machine with CONVOY_RDMA_VM or two hosts with CONVOY_RDMA_HOSTS",
            );
        }
    };
    let library = convoy_tests::library::path();
    command.env("COMMAND", convoy_tests::library::command()).env("LIBRARY", library);
    command.env("STREAM", convoy_tests::program!("host_stream"));
    let output = command.stdin(Stdio::null()).output().expect("the exercise");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success() && said.contains("PASSED"), "{}\n{said}\n{complained}", output.status);
}

fn hosts() -> Option<[String; 3]> {
    let value = std::env::var("CONVOY_RDMA_HOSTS").ok()?;
    let parts: Vec<String> = value.split(',').map(|part| part.trim().to_owned()).collect();
    assert!(parts.len() == 3, "CONVOY_RDMA_HOSTS is COMMAND-A,COMMAND-B,ADDRESS-B and not {value}");
    parts.try_into().ok()
}

fn machine(here: &Path) -> Option<PathBuf> {
    let named = std::env::var_os("CONVOY_RDMA_VM").map(PathBuf::from);
    named.or_else(|| Some(here.join(MACHINE)).filter(|path| path.exists()))
}
