//! Real programs with their server on another host: redis, nginx, memcached, PostgreSQL.

use std::fs;

use convoy_tests::arena::find;
use convoy_tests::hosts::{Host, Plan, World};
use convoy_tests::kit::pattern;

use crate::common::{acquaint, both};

/// Server on host 1, clients on host 0, and links between them from the beginning.
fn exercise(provider: &str, what: fn(&World, Host<'_>, Host<'_>) -> String) {
    both(provider, &Plan::pair(), |world| {
        acquaint(world, 1, 0);
        what(world, world.host(1), world.host(0))
    });
}

fn redis(world: &World, server: Host<'_>, client: Host<'_>) -> String {
    let (address, directory) = (server.ip(), world.path("").display().to_string());
    let arguments =
        ["--port", "6379", "--bind", &address, "--save", "", "--protected-mode", "no", "--dir", &directory];
    let program = find("redis-server", "redis-server");
    let serving = server.start("redis", server.command(program, &arguments));
    world.listening(server, 6379);
    let run = |program: &str, words: &[&str]| {
        let all = [&["-h", &address], words].concat();
        client.run(client.command(find(program, "redis-tools"), &all))
    };
    let bench = |words: &[&str]| {
        let output = run("redis-benchmark", &[&["--csv"], words].concat());
        let names = output.lines().skip(1).filter_map(|line| line.split(',').next());
        names.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let mut said = vec![
        bench(&["-c", "50", "-n", "10000", "-t", "set,get,incr"]),
        bench(&["-c", "50", "-n", "20000", "-P", "16", "-t", "set,get"]),
        bench(&["-c", "20", "-n", "2000", "-d", "3000", "-t", "set,get,lpush,lrange_100"]),
    ];
    let mut script = String::new();
    for number in 0..300 {
        script.push_str(&format!("set key{number} {}\nget key{}\n", "v".repeat(1 + number * 3), number / 2));
    }
    script.push_str(&format!("set large {}\nget large\nstrlen large\ndbsize\n", "L".repeat(1_000_000)));
    let mut command = client.command(find("redis-cli", "redis-tools"), &["-h", &address]);
    command.stdin(fs::File::open(world.file("script", script)).unwrap());
    said.push(client.run(command));
    run("redis-cli", &["shutdown", "nosave"]);
    said.push(serving.ended().status.to_string());
    said.join("\n")
}

fn nginx(world: &World, server: Host<'_>, client: Host<'_>) -> String {
    let (address, base) = (server.ip(), world.path("").display().to_string());
    let mut bytes = vec![0; 10 << 20];
    pattern::fill(7, 0, &mut bytes);
    world.file("large", &bytes);
    world.file("middle", &bytes[..100_000]);
    world.file("small", &bytes[..1000]);
    let config = world.file(
        "nginx.conf",
        format!(
            "daemon off; user root; worker_processes 2; pid {base}/nginx.pid; error_log {base}/nginx.err warn;
             events {{ worker_connections 1000; }}
             http {{
               access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
               client_body_temp_path {base}/b; proxy_temp_path {base}/p; fastcgi_temp_path {base}/f;
               uwsgi_temp_path {base}/u; scgi_temp_path {base}/s;
               server {{
                 listen {address}:8080; root {base};
                 location /copied/ {{ sendfile off; alias {base}/; }}
               }}
             }}"
        ),
    );
    let arguments = ["-p", &base, "-e", "stderr", "-c", config.to_str().unwrap()];
    let serving = server.start("nginx", server.command(find("nginx", "nginx"), &arguments));
    world.listening(server, 8080);
    let load = |path: &str| {
        let address = format!("http://{address}:8080/{path}");
        let output =
            client.run(client.command(find("wrk", "wrk"), &["-t", "2", "-c", "50", "-d", "1", &address]));
        let count = output.lines().find_map(|line| line.trim().split_once(" requests in "));
        let count: u64 = count.expect("wrk's number of requests").0.parse().unwrap();
        world.check(count > 100, &output);
        world.check(!output.contains("Non-2xx") && !output.contains("Socket errors"), &output);
    };
    let mut said = Vec::new();
    for path in ["small", "copied/small", "middle"] {
        load(path);
        for (name, size) in [("large", bytes.len()), ("copied/large", bytes.len()), ("small", 1000)] {
            let (body, address) = (world.path("body"), format!("http://{address}:8080/{name}"));
            let body_path = body.display().to_string();
            let arguments =
                ["-sS", "--fail", "-o", &body_path, "-w", "%{http_code} %{size_download}", &address];
            said.push(client.run(client.command(find("curl", "curl"), &arguments)));
            world.check(fs::read(&body).unwrap() == bytes[..size], &format!("the body of {address}"));
        }
    }
    said.push(serving.end(libc::SIGQUIT).status.to_string());
    said.join("\n")
}

fn memcached(world: &World, server: Host<'_>, client: Host<'_>) -> String {
    let address = server.ip();
    let arguments =
        ["-u", "root", "-l", &address, "-p", "11211", "-U", "0", "-t", "4", "-m", "128", "-I", "4m"];
    let serving = server.start("memcached", server.command(find("memcached", "memcached"), &arguments));
    world.listening(server, 11211);
    let script = world.file("client.py", include_str!("../../programs/hosts/cache_client.py"));
    let mut said = String::new();
    for connections in ["5", "60"] {
        let arguments = [script.to_str().unwrap(), &address, "11211", connections];
        said += &client.run(client.command(find("python3", "python3"), &arguments));
    }
    serving.end(libc::SIGTERM);
    said
}

crate::over_providers!(
    redis: super::redis_exercise,
    nginx: super::nginx_exercise,
    memcached: super::memcached_exercise,
);

fn redis_exercise(provider: &str) {
    exercise(provider, redis);
}

fn nginx_exercise(provider: &str) {
    exercise(provider, nginx);
}

fn memcached_exercise(provider: &str) {
    exercise(provider, memcached);
}
