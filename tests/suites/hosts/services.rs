//! More real programs between hosts: PostgreSQL with a process for each connection, iperf3, sockperf.

use std::fs;
use std::process::Command;

use convoy_tests::arena::find;
use convoy_tests::hosts::{Host, Plan, World};
use convoy_tests::json::numbers;
use convoy_tests::user;

use crate::common::{acquaint, both};

/// The server refuses to run as root: it and its clients run as the user that its package has made.
fn as_postgres(command: &mut Command) {
    let (user, group) = user::postgres();
    user::become_user(command, user, group);
    command.env("PGUSER", "postgres").env("PGDATABASE", "postgres").env("PGCONNECT_TIMEOUT", "20");
}

fn postgres(world: &World) -> String {
    acquaint(world, 1, 0);
    let (server, client) = (world.host(1), world.host(0));
    let (address, data) = (server.ip(), world.path("data"));
    let command = |host: Host<'_>, program: &str, arguments: &[&str]| {
        let mut command = host.command(find(program, "postgresql"), arguments);
        as_postgres(&mut command);
        command.env("PGHOST", &address).env("HOME", world.path(""));
        command
    };
    let path = data.to_str().unwrap();
    let shape = ["-D", path, "-A", "trust", "-N", "--no-locale", "-E", "UTF8", "-U", "postgres"];
    server.run(command(server, "initdb", &shape));
    fs::write(data.join("pg_hba.conf"), "host all all 0.0.0.0/0 trust\n").unwrap();
    let listen = format!("listen_addresses={address}");
    let settings =
        ["-c", &listen, "-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "autovacuum=off"];
    let serving =
        server.start("postgres", command(server, "postgres", &[&["-D", path], &settings[..]].concat()));
    world.listening(server, 5432);
    let query = |text: &str| command(client, "psql", &["-XAtc", text]);
    world.eventually("an answer", || client.try_run(query("select 1")).status.success());
    client.run(command(client, "pgbench", &["-i", "-q", "-s", "1"]));
    let bench = |arguments: &[&str]| {
        let output = client.run(command(client, "pgbench", &[&["-n"], arguments].concat()));
        let lines = output.lines().filter(|line| line.contains("processed") || line.contains("failed"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut said = vec![
        bench(&["-S", "-c", "8", "-j", "2", "-t", "400"]),
        bench(&["-c", "4", "-j", "2", "-t", "50"]),
        bench(&["-S", "-M", "prepared", "-c", "4", "-t", "200"]),
        bench(&["-S", "-C", "-c", "4", "-t", "10"]),
    ];
    let sums =
        "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
                       (select count(*) from pgbench_history)";
    said.push(client.run(query(sums)));
    let rows = "select i, repeat(md5(i::text), 10) from generate_series(1, 5000) i";
    said.push(client.run(query(rows)));
    said.push(serving.end(libc::SIGINT).status.to_string());
    said.join("\n")
}

#[test]
fn postgres_pgbench() {
    both(crate::common::TCP, &Plan::pair(), postgres);
}

fn iperf3(provider: &str) {
    both(provider, &Plan::pair(), |world| {
        acquaint(world, 1, 0);
        let (server, client) = (world.host(1), world.host(0));
        let (address, program) = (server.ip(), find("iperf3", "iperf3"));
        let ways: [&[&str]; 4] =
            [&["-n", "50M"], &["-n", "50M", "-R"], &["-t", "1", "-P", "4"], &["-t", "1", "--bidir"]];
        for (number, way) in ways.iter().enumerate() {
            let port = (5201 + number).to_string();
            let arguments = ["-s", "-1", "-B", &address, "-p", &port, "-i", "0", "--forceflush"];
            let mut serving = server.start("iperf3", server.command(&program, &arguments));
            // The server serves one client only, so nobody may try whether it is there.
            serving.says("Server listening");
            let place = ["-c", &address, "-p", &port, "-J", "-i", "0"];
            let output = client.run(client.command(&program, &[&place, *way].concat()));
            let end = &output[output.find("\"end\"").expect("a summary")..];
            let bytes = numbers(end, "bytes");
            world.check(!bytes.is_empty() && bytes.iter().all(|count| *count > 0.0), end);
            serving.ended();
        }
        "done".into()
    });
}

fn sockperf(provider: &str) {
    both(provider, &Plan::pair(), |world| {
        acquaint(world, 1, 0);
        let (server, client) = (world.host(1), world.host(0));
        let (address, program) = (server.ip(), find("sockperf", "sockperf"));
        // Each takes sockperf some seconds beside its second of measuring.
        let ways: [&[&str]; 2] = if provider == crate::common::TCP {
            [&["pp", "-m", "64"], &["tp", "-m", "64"]]
        } else {
            [&["pp", "-m", "4000"], &["ul", "-m", "64", "--mps", "5000", "--reply-every", "10"]]
        };
        for (number, way) in ways.iter().enumerate() {
            let port = 11100 + number as u16;
            let port_word = port.to_string();
            let place = ["-i", &address, "-p", &port_word, "--tcp"];
            let serving = server.start("sockperf", server.command(&program, &[&["sr"], &place[..]].concat()));
            world.listening(server, port);
            let command = client.command(&program, &[way, &place[..], &["-t", "1"]].concat());
            let ended = client.try_run(command);
            let text = format!("{}{}", ended.stdout, ended.stderr);
            world.check(ended.status.success() && text.contains("Summary"), &text);
            if text.contains("dropped messages") {
                for kind in ["dropped", "duplicated", "out-of-order"] {
                    world.check(text.contains(&format!("{kind} messages = 0")), &text);
                }
            }
            serving.end(libc::SIGINT);
        }
        "done".into()
    });
}

crate::over_providers!(iperf3: super::iperf3, sockperf: super::sockperf,);
