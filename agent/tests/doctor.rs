//! `convoy doctor` on real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Scratch, compile, compile_by, convoy, library, text};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const PROGRAM: &str = "int main(void) { return 0; }\n";

/// Exit status, and `topic: text` of all findings about the program that are not "ok".
fn doctor(program: &Path) -> (i32, String) {
    let mut command = convoy();
    let output =
        command.args(["doctor", "--json", "--library"]).arg(library()).arg(program).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let status = output.status.code().unwrap();
    assert_eq!(document["accelerated"], Value::Bool(status == 0));
    let findings = document["program_findings"].as_array().unwrap().iter();
    let odd = findings.filter(|finding| finding["verdict"] != "ok");
    let lines: Vec<_> = odd.map(|finding| format!("{}: {}", finding["topic"], finding["text"])).collect();
    (status, lines.join("\n"))
}

fn refused(program: &Path, word: &str) {
    let (status, findings) = doctor(program);
    assert_eq!(status, 1, "{findings}");
    assert!(findings.contains(word), "{findings}");
}

#[test]
fn a_dynamic_program_would_be_accelerated() {
    let (status, findings) = doctor(Path::new("/bin/ls"));
    assert_eq!(status, 0, "{findings}");
    assert_eq!(doctor(Path::new("ls")).0, 0, "found in PATH");
}

#[test]
fn people_get_a_verdict_in_words() {
    let output = convoy().args(["doctor", "/bin/ls", "--library"]).arg(library()).output().unwrap();
    let report = text(&output.stdout);
    assert!(report.contains("dynamically linked, glibc"), "{report}");
    assert!(report.lines().last().unwrap().starts_with("yes: /bin/ls"), "{report}");
    let output = convoy().args(["doctor", "--library"]).arg(library()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "this machine runs the other tests, so it is fit");
    assert!(text(&output.stdout).contains("yes: this machine"));
}

#[test]
fn a_program_that_uses_sockets_needs_no_note() {
    let scratch = Scratch::new("sockets");
    let program = scratch.path("program");
    compile("int socket(int, int, int); int main(void) { return socket(2, 1, 0) < 0; }\n", &program, &[]);
    assert_eq!(doctor(&program), (0, String::new()));
}

#[test]
fn static_programs_are_refused() {
    let scratch = Scratch::new("static");
    for (name, flag) in [("static", "-static"), ("static-pie", "-static-pie")] {
        let program = scratch.path(name);
        compile(PROGRAM, &program, &[flag]);
        refused(&program, "statically linked");
    }
    let program = scratch.path("static");
    let output = convoy().args(["run", "--library"]).arg(library()).arg(&program).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "it runs all the same");
    assert!(text(&output.stderr).contains("statically linked"), "and the user is told");
}

#[test]
fn go_programs_are_refused() {
    let scratch = Scratch::new("go");
    let section = scratch.path("section");
    let source = "__attribute__((section(\".go.buildinfo\"), used)) const char mark[16] = \"buildinfo\";\n";
    compile(&format!("{source}{PROGRAM}"), &section, &[]);
    refused(&section, "Go program");

    let note = scratch.path("note");
    let source = "__attribute__((section(\".note.x\"), used, aligned(4))) const struct { int name, size, type; char \
                  text[4], id[4]; } mark = { 4, 4, 4, \"Go\", \"abc\" };\n";
    compile(&format!("{source}{PROGRAM}"), &note, &[]);
    refused(&note, "Go program");
}

#[test]
fn other_libcs_and_processors_are_refused() {
    let scratch = Scratch::new("others");
    let musl = scratch.path("musl");
    compile(PROGRAM, &musl, &["-Wl,--dynamic-linker=/nonexistent/ld-musl-x86_64.so.1"]);
    refused(&musl, "is missing");

    let linker = scratch.path("ld-musl-test.so.1");
    fs::write(&linker, "").unwrap();
    compile(PROGRAM, &musl, &[&format!("-Wl,--dynamic-linker={}", linker.display())]);
    refused(&musl, "it uses musl");

    let mut image = fs::read(&musl).unwrap();
    // e_machine: RISC-V.
    image[18..20].copy_from_slice(&243u16.to_le_bytes());
    fs::write(&musl, image).unwrap();
    refused(&musl, "RISC-V");
}

#[test]
fn musl_programs_run_without_the_library() {
    let scratch = Scratch::new("musl");
    let program = scratch.path("program");
    let source = "#include <stdio.h>\n#include <stdlib.h>\nint main(void) { char *list = getenv(\"LD_PRELOAD\"); \
                  puts(list ? list : \"none\"); return 7; }\n";
    compile_by("musl-gcc", source, &program, &[]);
    refused(&program, "it uses musl");
    let run = |preload: &str| {
        let mut command = convoy();
        command.args(["run", "--library"]).arg(library()).arg(&program).env("LD_PRELOAD", preload);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
        let error = text(&output.stderr);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains("will not be accelerated: it uses musl"), "{error}");
        text(&output.stdout)
    };
    assert_eq!(run(""), "none\n");
    // As in a shell that itself runs under Convoy.
    assert_eq!(run(library().to_str().unwrap()), "none\n");
    let script = scratch.path("script");
    fs::write(&script, format!("#!{}\n", program.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    refused(&script, "it uses musl");
}

#[test]
fn address_sanitizer_need_not_be_first() {
    let scratch = Scratch::new("asan");
    let program = scratch.path("program");
    let source = "#include <stdio.h>\n#include <stdlib.h>\nint main(void) { return puts(getenv(\"ASAN_OPTIONS\")) < 0; }\n";
    compile(source, &program, &["-fsanitize=address"]);
    let (status, findings) = doctor(&program);
    assert_eq!(status, 0, "{findings}");
    assert!(findings.contains("verify_asan_link_order=0"), "{findings}");
    let mut command = convoy();
    command.args(["run", "--library"]).arg(library()).arg(&program).env("ASAN_OPTIONS", "detect_leaks=0");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "verify_asan_link_order=0:detect_leaks=0\n");
}

#[test]
fn thread_sanitizer_gets_a_note() {
    let scratch = Scratch::new("tsan");
    let program = scratch.path("program");
    compile(PROGRAM, &program, &["-fsanitize=thread"]);
    let (status, findings) = doctor(&program);
    assert_eq!(status, 0, "{findings}");
    assert!(findings.contains("ignore_noninstrumented_modules=1"), "{findings}");
}

#[test]
fn what_is_no_program_is_refused() {
    let scratch = Scratch::new("none");
    let file = scratch.path("file");
    let write = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write(b"");
    refused(&file, "neither an ELF file nor a script");
    write(&fs::read("/bin/ls").unwrap()[..70]);
    refused(&file, "broken");
    write(b"#!\n");
    refused(&file, "names no interpreter");
    write(b"#!/nonexistent/shell\n");
    refused(&file, "interpreter is missing");
    write(format!("#!{}\n", file.display()).as_bytes());
    refused(&file, "too many scripts");
}

#[test]
fn scripts_are_as_good_as_their_interpreter() {
    let scratch = Scratch::new("script");
    let script = scratch.path("script");
    let write = |line: &str| {
        fs::write(&script, line).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    };
    for line in ["#!/bin/sh", "#! /bin/sh -e\n", "#!/usr/bin/env sh\n", "#!/usr/bin/env -S A=b sh -e\n"] {
        write(line);
        assert_eq!(doctor(&script).0, 0, "{line}");
    }
    let fixed = scratch.path("fixed");
    compile(PROGRAM, &fixed, &["-static"]);
    write(&format!("#!{}\n", fixed.display()));
    refused(&script, "statically linked");
}

#[test]
fn programs_that_gain_rights_are_refused() {
    let scratch = Scratch::new("rights");
    let program = scratch.path("program");
    fs::copy("/bin/ls", &program).unwrap();
    if std::os::unix::fs::chown(&program, Some(65534), Some(65534)).is_ok() {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        refused(&program, "setuid to user 65534");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o2755)).unwrap();
        refused(&program, "setgid to group 65534");
        let output = convoy().args(["run", "--library"]).arg(library()).arg(&program).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "it runs all the same");
        assert!(text(&output.stderr).contains("setgid to group 65534"), "and the user is told");
    } else {
        // Without the right to give files away, a system program has to do.
        refused(Path::new("/bin/su"), "setuid to user 0");
    }
}

#[test]
fn a_machine_without_a_place_to_meet_is_not_fit() {
    let output = convoy()
        .args(["doctor", "--library"])
        .arg(library())
        .env("CONVOY_DIR", "/nonexistent/directory")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("/nonexistent/directory"));
    let output = convoy().args(["doctor", "--library", "/nonexistent.so"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
