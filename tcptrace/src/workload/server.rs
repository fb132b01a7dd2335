//! Servers that close, sooner or later.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::role::{READY, RoleArgs};

/// Longest time that an idle client may keep a thread.
const PATIENCE: Duration = Duration::from_secs(120);

/// Echoes, and closes as soon as it is told EOF: CLOSE_WAIT for microseconds.
pub(super) fn answer_and_close(args: &RoleArgs) -> io::Result<()> {
    let listener = listen(args)?;
    // Two at a time, so that one slow client does not stop the traffic.
    let second = listener.try_clone()?;
    thread::Builder::new().spawn(move || serve_in_turn(&second, echo_until_eof))?;
    serve_in_turn(&listener, echo_until_eof)
}

/// Reads until ECONNRESET.
pub(super) fn read_until_reset(args: &RoleArgs) -> io::Result<()> {
    serve_in_turn(&listen(args)?, echo_until_eof)
}

/// Keeps its end for `--hold` after EOF: the client's FIN_WAIT2 runs into tcp_fin_timeout meanwhile.
pub(super) fn close_much_later(args: &RoleArgs) -> io::Result<()> {
    let hold = args.hold;
    serve_each(&listen(args)?, move |mut stream| {
        read_until_eof(&mut stream);
        thread::sleep(hold);
    })
}

/// Answers `--hold` after EOF: the client waits in FIN_WAIT2 meanwhile.
pub(super) fn answer_slowly(args: &RoleArgs) -> io::Result<()> {
    let hold = args.hold;
    serve_each(&listen(args)?, move |mut stream| {
        read_until_eof(&mut stream);
        thread::sleep(hold);
        // The client may have given up: nothing is left to do for it.
        let _ = stream.write_all(b"done\n");
    })
}

/// Binds, and tells the starter that clients may come.
pub(super) fn listen(args: &RoleArgs) -> io::Result<TcpListener> {
    let listener = bind(args.at)?;
    println!("{READY}");
    Ok(listener)
}

/// Binds and listens; an error names the address.
pub(super) fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(at)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {at}: {error}")))
}

/// Accepts for ever, one connection after the other.
pub(super) fn serve_in_turn(listener: &TcpListener, mut serve: impl FnMut(TcpStream)) -> io::Result<()> {
    loop {
        serve(accept(listener)?);
    }
}

/// Accepts for ever, a thread for each connection. The clients' rate bounds their number.
fn serve_each(listener: &TcpListener, serve: impl Fn(TcpStream) + Send + Clone + 'static) -> io::Result<()> {
    loop {
        let stream = accept(listener)?;
        let serve = serve.clone();
        thread::Builder::new().stack_size(64 * 1024).spawn(move || serve(stream))?;
    }
}

/// accept() that outlives aborted connections and a full descriptor table.
pub(super) fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // EMFILE and its kin pass when others close.
                eprintln!("accept: {error}");
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

fn echo_until_eof(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

fn read_until_eof(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer) {}
}
