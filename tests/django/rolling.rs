//! Two instances that read their secrets when they start, behind one address, restarted one after the other.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::{ROWS, Shop, USERS};

/// An instance of the application. Ends with the value.
struct Instance {
    server: Child,
    port: u16,
}

impl Instance {
    fn start(shop: &Shop) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let bind = format!("127.0.0.1:{port}");
        let mut command = shop.python(&["-m", "gunicorn", "--workers", "1", "--bind", &bind, "shop:application"]);
        command.env("SHOP_KEYS", "at-start");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let instance = Self {
            server: command.spawn().unwrap(),
            port,
        };
        let began = Instant::now();
        // It has read its secrets when it has answered.
        while instance.get("/whoami", None).is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "the application does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        instance
    }

    /// A page as a browser with this session gets it, whole until the connection ends, and the session that it has afterwards.
    fn get(&self, path: &str, session: Option<&str>) -> Option<(String, Option<String>)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let cookie = session.map_or(String::new(), |session| format!("Cookie: sessionid={session}\r\n"));
        write!(stream, "GET {path} HTTP/1.0\r\nHost: shop\r\n{cookie}\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let given = head
            .lines()
            .find_map(|line| line.split_once("sessionid=").map(|(_, rest)| rest));
        let given = given.and_then(|rest| rest.split(';').next()).map(str::to_owned);
        Some((body.trim().to_owned(), given.or(session.map(str::to_owned))))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let pid = i32::try_from(self.server.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.server.wait();
    }
}

/// Users with their sessions.
struct Browsers(Vec<(String, Option<String>)>);

impl Browsers {
    fn log_in(instance: &Instance) -> Self {
        let names = (0..USERS).map(|number| format!("user{number}"));
        let entered = names.map(|name| {
            let (said, session) = instance.get(&format!("/enter/{name}"), None).unwrap();
            assert_eq!(said, "in");
            (name, session)
        });
        Self(entered.collect())
    }

    /// Every user goes from one instance to the other and back, as a load balancer sends them. Says how many were logged out.
    fn visit(&mut self, instances: [&Instance; 2]) -> usize {
        let mut logged_out = 0;
        for (name, session) in &mut self.0 {
            for instance in [instances[0], instances[1], instances[0]] {
                let (who, after) = instance.get("/whoami", session.as_deref()).unwrap();
                *session = after;
                if who != *name {
                    logged_out += 1;
                    break;
                }
            }
        }
        logged_out
    }
}

#[test]
fn heavy_nobody_is_logged_out_while_instances_are_restarted_one_after_the_other() {
    let Some(shop) = Shop::open() else { return };
    fs::write(shop.path(".env"), "SECRET_KEY=\nSECRET_KEY_FALLBACKS=\n").unwrap();
    shop.reseal("secrets rotate SECRET_KEY --compromised --yes");
    shop.reseal("keys generate customers --algorithm fernet");
    shop.export();
    let prepared = shop
        .python(&["shop.py", "prepare", &ROWS.to_string(), &USERS.to_string()])
        .output()
        .unwrap();
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    let mut pair = [Instance::start(&shop), Instance::start(&shop)];
    let mut early = Browsers::log_in(&pair[0]);
    assert_eq!(early.visit([&pair[0], &pair[1]]), 0);

    for step in ["--introduce", "--promote", "--retire"] {
        shop.reseal(&format!("secrets rotate SECRET_KEY {step} --yes"));
        for at in [0, 1] {
            pair[at] = Instance::start(&shop);
            // One has read the new file, the other has not; whoever logs in now meets both, too.
            let mut late = Browsers::log_in(&pair[at]);
            let both = [&pair[0], &pair[1]];
            assert_eq!(
                (early.visit(both), late.visit(both)),
                (0, 0),
                "{step}, instance {at} restarted"
            );
        }
    }
    let env = fs::read_to_string(shop.path(".env")).unwrap();
    assert!(env.contains("SECRET_KEY_FALLBACKS=''\n"), "an old value is still accepted");

    // In one step the same restarts log users out: this is what the steps are for, and that the test would see it.
    shop.reseal("secrets rotate SECRET_KEY --yes");
    pair[0] = Instance::start(&shop);
    let mut late = Browsers::log_in(&pair[0]);
    assert!(late.visit([&pair[0], &pair[1]]) > 0, "nobody was logged out");
}
