//! Sockets that do one thing: connected pairs in every flavour, and the rarer ways of closing.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Which addresses a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
    /// AF_INET6 sockets with ::ffff:127.0.0.1.
    Mapped,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    /// Where a listener binds.
    fn bind_addr(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, port).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, port).into(),
            Self::Mapped => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    }

    /// Where a client connects.
    fn connect_addr(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 | Self::V6 => self.bind_addr(port),
            Self::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into(),
        }
    }

    /// `family` in the output.
    #[must_use]
    pub fn family(self) -> &'static str {
        match self {
            Self::V4 | Self::Mapped => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// Both ends of one connection, in this process.
#[derive(Debug)]
pub struct Pair {
    /// Called connect().
    pub client: TcpStream,
    /// Was accepted.
    pub server: TcpStream,
    /// The client's address as shown (v4-mapped as IPv4).
    pub client_addr: SocketAddr,
    /// The server's.
    pub server_addr: SocketAddr,
}

/// A listener that makes pairs.
#[derive(Debug)]
pub struct Meeting {
    listener: TcpListener,
    flavour: Flavour,
}

impl Meeting {
    /// Listens on a port of its own choice.
    ///
    /// # Errors
    /// When it cannot.
    pub fn new(flavour: Flavour) -> Result<Self> {
        Self::on(flavour, 0)
    }

    /// Listens on `port`.
    ///
    /// # Errors
    /// When it cannot.
    pub fn on(flavour: Flavour, port: u16) -> Result<Self> {
        Ok(Self { listener: TcpListener::bind(flavour.bind_addr(port))?, flavour })
    }

    /// The listening port.
    ///
    /// # Errors
    /// Never, in practice.
    pub fn port(&self) -> Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Where to connect.
    ///
    /// # Errors
    /// Never, in practice.
    pub fn addr(&self) -> Result<SocketAddr> {
        Ok(self.flavour.connect_addr(self.port()?))
    }

    /// One more connection.
    ///
    /// # Errors
    /// When it fails.
    pub fn pair(&self) -> Result<Pair> {
        self.accept(TcpStream::connect(self.addr()?)?)
    }

    /// One more connection, whose client is bound to `port` (SO_REUSEADDR).
    ///
    /// # Errors
    /// When it fails.
    pub fn pair_from(&self, port: u16) -> Result<Pair> {
        let addr = self.addr()?;
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(SocketAddr::new(addr.ip(), port)))?;
        socket.connect(&SockAddr::from(addr))?;
        self.accept(socket.into())
    }

    /// The accepting end of a client that has connected.
    ///
    /// # Errors
    /// When it fails.
    pub fn accept(&self, client: TcpStream) -> Result<Pair> {
        let (server, _) = self.listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        }
        let client_addr = canonical(client.local_addr()?);
        ensure!(client_addr == canonical(server.peer_addr()?), "another client was accepted");
        Ok(Pair { client_addr, server_addr: canonical(client.peer_addr()?), client, server })
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// A connection of MPTCP over loopback.
#[derive(Debug)]
pub struct MptcpPair {
    /// Who accepted it.
    pub listener: Socket,
    /// Who connected.
    pub client: Socket,
    /// The accepted end.
    pub server: Socket,
}

impl MptcpPair {
    /// Whether this kernel speaks MPTCP.
    #[must_use]
    pub fn is_possible() -> bool {
        Self::socket().is_ok()
    }

    /// Makes one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        let listener = Self::socket()?;
        listener.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
        listener.listen(8)?;
        let client = Self::socket()?;
        client.connect(&listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        Ok(Self { listener, client, server })
    }

    fn socket() -> std::io::Result<Socket> {
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP))
    }
}

/// Reads until EOF.
///
/// # Errors
/// When the connection fails instead.
pub fn read_eof(stream: &mut TcpStream) -> Result<()> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("waiting for EOF")?;
    Ok(())
}

/// Sends `bytes` and waits until the other end has them in its queue (loopback delivers at once).
///
/// # Errors
/// When the connection fails.
pub fn send(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    Ok(stream.write_all(bytes)?)
}

/// close() by RST.
///
/// # Errors
/// When the option is refused.
pub fn reset(stream: TcpStream) -> Result<()> {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(())
}

/// TCP_LINGER2 in seconds: this socket's own tcp_fin_timeout; negative skips FIN_WAIT2.
///
/// # Errors
/// When the option is refused.
pub fn set_linger2(stream: &TcpStream, seconds: i32) -> Result<()> {
    // SAFETY: the descriptor is open for the length of the call and the option is one int, given with its size.
    let outcome = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_LINGER2,
            (&raw const seconds).cast(),
            u32::try_from(size_of::<i32>())?,
        )
    };
    ensure!(outcome == 0, "TCP_LINGER2: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Drops every segment that arrives at `stream` until [`hear`]: the peer seems to be gone.
///
/// # Errors
/// When the filter is refused.
pub fn turn_deaf(stream: &TcpStream) -> Result<()> {
    // BPF_RET | BPF_K with 0: keep nothing.
    let drop_all = [socket2::SockFilter::new(0x06, 0, 0, 0)];
    Ok(socket2::SockRef::from(stream).attach_filter(&drop_all)?)
}

/// Undoes [`turn_deaf`].
///
/// # Errors
/// When it was not deaf.
pub fn hear(stream: &TcpStream) -> Result<()> {
    Ok(socket2::SockRef::from(stream).detach_filter()?)
}
