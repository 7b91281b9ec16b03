//! A server on small pictures, for tests that talk to it.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses its own part

use bytes::Bytes;
use mixfeed_client::{Batch, Client, ClientOptions, Start, StreamOptions};
use mixfeed_proto as v1;
use mixfeed_server::source::{Index, Memory, Source, SourceError};
use mixfeed_server::{Running, Sources, config};
use std::collections::BTreeMap;
use std::io::Cursor as Reader;
use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::watch;

/// Classes of [`pictures`] with their numbers of records.
pub const CLASSES: [(&str, usize); 3] = [("ant", 11), ("bee", 7), ("cat", 5)];

/// A picture of `height` x `width` whose pixels depend on `seed`: smooth enough for JPEG, never flat.
pub fn picture(seed: usize, height: u32, width: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| {
        let wave = |k: usize| {
            let phase = (seed * 37 + k * 59) as f32;
            (127.0 + 120.0 * ((x as f32 * 0.11 + y as f32 * 0.07 * (k + 1) as f32 + phase).sin())) as u8
        };
        image::Rgb([wave(0), wave(1), wave(2)])
    })
}

/// Encoded as a file name's extension says.
pub fn encoded(name: &str, picture: &image::RgbImage) -> Bytes {
    let format = image::ImageFormat::from_path(name).unwrap();
    let mut out = Vec::new();
    picture.write_to(&mut Reader::new(&mut out), format).unwrap();
    out.into()
}

/// Records of the test source: (name, bytes, class), JPEG and PNG of odd, unequal sides.
pub fn pictures() -> Vec<(String, Bytes, String)> {
    let mut out = Vec::new();
    for (class, records) in CLASSES {
        for i in 0..records {
            let name = format!("{class}/{i:02}.{}", if i % 3 == 0 { "png" } else { "jpg" });
            let bytes = encoded(&name, &picture(out.len(), 41 + 2 * i as u32, 67 + i as u32));
            out.push((name, bytes, class.to_owned()));
        }
    }
    out
}

/// The test source as "pics".
pub fn sources() -> Sources {
    named(Memory::new(pictures()).unwrap())
}

pub fn named(source: impl Source + 'static) -> Sources {
    Sources::from([("pics".to_owned(), Arc::new(source) as Arc<dyn Source>)])
}

/// Counts reads, and fails or waits when told.
#[derive(Debug)]
pub struct Watched {
    pub inner: Memory,
    pub reads: Arc<AtomicUsize>,
    /// Error of every read from the n-th on.
    pub fail_from: usize,
    pub changed: bool,
}

impl Watched {
    pub fn new() -> Watched {
        let inner = Memory::new(pictures()).unwrap();
        Watched { inner, reads: Arc::default(), fail_from: usize::MAX, changed: false }
    }
}

impl Source for Watched {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn index(&self) -> &Index {
        self.inner.index()
    }
    fn notes(&self) -> &[String] {
        self.inner.notes()
    }
    fn read(&self, number: u32) -> Result<Bytes, SourceError> {
        if self.reads.fetch_add(1, SeqCst) < self.fail_from {
            return self.inner.read(number);
        }
        let file = "pics/shard".to_owned();
        Err(match self.changed {
            true => SourceError::Changed { file, what: "its size".into() },
            false => SourceError::Io { file, error: std::io::Error::other("the disk is gone") },
        })
    }
}

/// A job of 12 rows in blocks of 3: world sizes 1, 2, 4. Every policy, every augmentation.
pub fn spec() -> v1::JobSpec {
    let policies = mixfeed_server::plan::image::POLICIES.iter();
    let policies = policies.map(|p| v1::PolicySpec { name: p.name().into(), ..Default::default() });
    v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "pics".into(), ..Default::default() }],
        seed: 5,
        global_batch: 12,
        mix_block: 3,
        image: Some(v1::ImageSpec {
            height: 33,
            width: 45,
            random_resized_crop: Some(v1::RandomResizedCrop::default()),
            horizontal_flip: 0.5,
            color_jitter: Some(v1::ColorJitter { brightness: 0.4, contrast: 0.3, saturation: 0.2, hue: 0.1 }),
            random_erasing: Some(v1::RandomErasing { p: Some(0.3), ..Default::default() }),
            ..Default::default()
        }),
        mix: Some(v1::MixSpec {
            policies: policies.collect(),
            choose: v1::Choose::Row as i32,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A server on a free port, with its off switch.
pub struct Server {
    pub running: Running,
    pub stop: watch::Sender<bool>,
}

impl Server {
    pub async fn start(sources: Sources) -> Server {
        Server::with(sources, |_| {}).await
    }

    pub async fn with(sources: Sources, change: impl FnOnce(&mut config::Server)) -> Server {
        let mut settings =
            config::Server { listen: vec!["127.0.0.1:0".into()], http: String::new(), ..Default::default() };
        change(&mut settings);
        let (stop, stopped) = watch::channel(false);
        let running =
            mixfeed_server::start(&settings, sources, BTreeMap::new(), None, stopped).await.unwrap();
        Server { running, stop }
    }

    pub fn endpoint(&self) -> &str {
        &self.running.endpoints[0]
    }

    pub async fn client(&self) -> Client {
        // Errors are what these tests look at: no patience.
        let options = ClientOptions::default().patience(Duration::ZERO);
        Client::connect_with([self.endpoint()], options).await.unwrap()
    }

    /// A client with the job "job" open.
    pub async fn open(&self, spec: &v1::JobSpec) -> Client {
        let client = self.client().await;
        client.open_job("job", spec).await.unwrap();
        client
    }
}

/// `steps` batches of a rank from `from` on.
pub async fn pull(client: &Client, rank: u32, world_size: u32, from: u64, steps: usize) -> Vec<Batch> {
    let options = StreamOptions { rank, world_size, start: Start::Step(from), ..Default::default() };
    let mut stream = client.stream("job", options).await.unwrap();
    let mut out = Vec::new();
    while out.len() < steps {
        out.push(stream.next_batch().await.unwrap().expect("the job goes on"));
    }
    out
}

/// All bytes of a batch with their names.
pub fn bytes(batch: &Batch) -> Vec<(String, Vec<u8>)> {
    batch.tensors().map(|t| (t.name.to_owned(), t.bytes.to_vec())).collect()
}

/// Several ranks' batches of a step as one.
pub fn joined(parts: &[Batch]) -> Vec<(String, Vec<u8>)> {
    let mut whole = bytes(&parts[0]);
    for part in &parts[1..] {
        for ((name, all), (other, more)) in whole.iter_mut().zip(bytes(part)) {
            assert_eq!(*name, other);
            all.extend(more);
        }
    }
    whole
}

/// Lets other tasks run until `done`.
pub async fn until(mut done: impl FnMut() -> bool) {
    let late = std::time::Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(std::time::Instant::now() < late, "it never happened");
        tokio::task::yield_now().await;
    }
}
