//! How each kind of server is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use convoy_tests::arena::find;
use convoy_tests::hosts::{Host, World};
use convoy_tests::user;

/// Kinds of servers and their ports.
pub const KINDS: [(&str, u16); 5] =
    [("redis", 6379), ("memcached", 11211), ("nginx", 8080), ("echo", 7777), ("postgres", 5432)];

/// What the servers find when they start for the first time: nginx's pages and PostgreSQL's data.
pub fn prepare(world: &World, host: Host<'_>, script: &Path) {
    let pages = world.path("pages");
    fs::create_dir(&pages).unwrap();
    host.run(host.plain(find("python3", "python3"), &[text(script), "files", text(&pages)]));
    let data = world.path("data");
    let shape = ["-D", text(&data), "-A", "trust", "-N", "--no-locale", "-E", "UTF8", "-U", "postgres"];
    let mut command = host.plain(find("initdb", "postgresql"), &shape);
    as_postgres(&mut command);
    host.run(command);
    fs::write(data.join("pg_hba.conf"), "host all all 0.0.0.0/0 trust\n").unwrap();
}

pub fn command(world: &World, host: Host<'_>, name: &str, script: &Path) -> Command {
    let (_, port) = KINDS.iter().find(|(known, _)| *known == name).expect("a kind");
    let (address, port) = (host.ip(), port.to_string());
    match name {
        "redis" => redis(world, host, &address, &port),
        "memcached" => {
            let words =
                ["-u", "root", "-l", &address, "-p", &port, "-U", "0", "-t", "2", "-m", "64", "-c", "200"];
            host.command(find("memcached", "memcached"), &words)
        }
        "nginx" => {
            let config = nginx_config(world, &address, &port);
            let words = ["-p", text(&world.path("")), "-e", "stderr", "-c", text(&config)].map(str::to_owned);
            host.command(find("nginx", "nginx"), &words.each_ref().map(String::as_str))
        }
        "postgres" => postgres(world, host, &address, &port),
        _ => host.command(find("python3", "python3"), &[text(script), "serve", &address, &port]),
    }
}

fn redis(world: &World, host: Host<'_>, address: &str, port: &str) -> Command {
    let base = world.path("");
    // Written before it is acknowledged, as a process that is killed needs it.
    let kept = ["--save", "", "--appendonly", "yes", "--appendfsync", "no", "--dir", text(&base)];
    let place = ["--port", port, "--bind", address, "--protected-mode", "no"];
    host.command(find("redis-server", "redis-server"), &[&place[..], &kept].concat())
}

fn nginx_config(world: &World, address: &str, port: &str) -> PathBuf {
    let base = world.path("").display().to_string();
    let config = format!(
        "daemon off; user root; worker_processes 2; pid {base}/nginx.pid; error_log {base}/nginx.err crit;
         events {{ worker_connections 200; }}
         http {{
           access_log off; sendfile on; keepalive_requests 20;
           client_body_temp_path {base}/b; proxy_temp_path {base}/p; fastcgi_temp_path {base}/f;
           uwsgi_temp_path {base}/u; scgi_temp_path {base}/s;
           server {{ listen {address}:{port}; root {base}/pages; }}
         }}"
    );
    world.file("nginx.conf", config)
}

/// A process for each connection.
fn postgres(world: &World, host: Host<'_>, address: &str, port: &str) -> Command {
    let data = world.path("data");
    postgres_is_gone(world);
    let listen = format!("listen_addresses={address}");
    // Without fsync a process may be killed, but not the machine.
    // Shared memory in its directory: what a killed server leaves goes with that.
    let memory = "dynamic_shared_memory_type=mmap";
    // The first checkpoint opens files for good: it comes while everything is warming up.
    let checkpoints = "checkpoint_timeout=30s";
    let others = ["fsync=off", "unix_socket_directories=", "max_connections=40"];
    let settings = [&*listen, memory, checkpoints].into_iter().chain(others);
    let mut words = vec!["-D", text(&data), "-p", port];
    settings.for_each(|setting| words.extend(["-c", setting]));
    let mut command = host.command(find("postgres", "postgresql"), &words);
    as_postgres(&mut command);
    command
}

pub fn as_postgres(command: &mut Command) {
    let (user, group) = user::postgres();
    user::become_user(command, user, group);
}

/// Waits for the processes of a server that was killed: they see that it is gone and end; before, no new one starts.
pub fn postgres_is_gone(world: &World) {
    let data = world.path("data");
    world.eventually("the end of PostgreSQL's processes", || nobody_works_in(&data));
}

fn nobody_works_in(directory: &Path) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut places = processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
    !places.any(|place| place == directory)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
