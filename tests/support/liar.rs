//! A server that lies: a real PostgreSQL behind a proxy that changes its answers, as a damaged one might, or somebody in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What it says instead of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Every row of a page, again and again without an end.
    Endless,
    /// Values of more bytes than any may have.
    Oversize,
    /// More rows written than there were in the batch.
    Counts,
    /// A swap took an hour: somebody has set its clock.
    Clock,
}

/// The proxy; it ends with the value.
pub struct Liar {
    port: u16,
    lies: Arc<AtomicU32>,
    _runtime: Runtime,
}

impl Liar {
    /// Before the server of this URL, which must be spoken to in the clear.
    pub fn before(url: &str, lie: Lie) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (upstream, lies) = (host_of(url).to_owned(), Arc::new(AtomicU32::new(0)));
        let told = Arc::clone(&lies);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, upstream.clone(), lie, Arc::clone(&told)));
            }
        });
        Self {
            port,
            lies,
            _runtime: runtime,
        }
    }

    /// The same URL, through the liar.
    pub fn url(&self, url: &str) -> String {
        format!(
            "{}?sslmode=disable",
            url.replace(host_of(url), &format!("127.0.0.1:{}", self.port))
        )
    }

    /// How many lies it has told.
    pub fn lies(&self) -> u32 {
        self.lies.load(Ordering::Relaxed)
    }
}

async fn serve(client: TcpStream, upstream: String, lie: Lie, told: Arc<AtomicU32>) -> std::io::Result<()> {
    let (mut asks, mut hears) = client.into_split();
    let (mut answers, mut takes) = TcpStream::connect(upstream).await?.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut asks, &mut takes).await });
    loop {
        // Every message of a server is its kind, its length and its content.
        let mut head = [0; 5];
        answers.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut content = vec![0; length - 4];
        answers.read_exact(&mut content).await?;
        let row = (head[0] == b'D').then(|| cells(&content));
        match (lie, row) {
            (Lie::Endless, Some(row)) if is_of_people(&row) => {
                let message = data_row(&row);
                told.fetch_add(1, Ordering::Relaxed);
                // Until the client has had enough.
                loop {
                    hears.write_all(&message).await?;
                }
            }
            (Lie::Oversize, Some(mut row)) if is_of_people(&row) => {
                row[EMAIL] = Some(vec![b'A'; OVERSIZE_BYTES]);
                told.fetch_add(1, Ordering::Relaxed);
                hears.write_all(&data_row(&row)).await?;
            }
            (Lie::Counts, Some(mut row)) if is_of_a_swap(&row) => {
                row[0] = Some(1_000_000_i64.to_be_bytes().to_vec());
                told.fetch_add(1, Ordering::Relaxed);
                hears.write_all(&data_row(&row)).await?;
            }
            (Lie::Clock, Some(mut row)) if is_of_a_swap(&row) => {
                row[3] = Some(3_600_000_000_i64.to_be_bytes().to_vec());
                told.fetch_add(1, Ordering::Relaxed);
                hears.write_all(&data_row(&row)).await?;
            }
            _ => {
                hears.write_all(&head).await?;
                hears.write_all(&content).await?;
            }
        }
    }
}

type Cells = Vec<Option<Vec<u8>>>;

fn cells(content: &[u8]) -> Cells {
    let (count, mut rest) = content.split_at(2);
    let count = u16::from_be_bytes([count[0], count[1]]);
    (0..count)
        .map(|_| {
            let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
            rest = &rest[4..];
            let length = usize::try_from(length).ok()?;
            let (cell, more) = rest.split_at(length);
            rest = more;
            Some(cell.to_vec())
        })
        .collect()
}

fn data_row(row: &Cells) -> Vec<u8> {
    let mut content = (row.len() as u16).to_be_bytes().to_vec();
    for cell in row {
        match cell {
            Some(bytes) => {
                content.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                content.extend_from_slice(bytes);
            }
            None => content.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    let mut message = vec![b'D'];
    message.extend_from_slice(&(content.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(&content);
    message
}

/// ctid, xmin, id, email and its size, note and its size.
fn is_of_people(row: &Cells) -> bool {
    row.len() == 7 && row[0].as_ref().is_some_and(|ctid| ctid.len() == 6)
}

/// Rows, values, whether the range moved, the microseconds that it took, and its transaction.
fn is_of_a_swap(row: &Cells) -> bool {
    row.len() == 5 && row.iter().all(|cell| cell.as_ref().is_some_and(|number| number.len() == 8))
}

fn host_of(url: &str) -> &str {
    url.split('@').next_back().unwrap().split('/').next().unwrap()
}

const EMAIL: usize = 3;
/// Above the largest value that is read.
const OVERSIZE_BYTES: usize = (16 << 20) + 1;
