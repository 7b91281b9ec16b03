//! Jobs that a device mixes: what a failing device costs whom, and what headers and receipts say.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "libtorch")]
mod serving;
mod stand;

#[cfg(feature = "libtorch")]
use mixfeed_client::{Client, Dtype};
use mixfeed_client::{Start, StreamOptions};
use mixfeed_proto as v1;
use mixfeed_server::assemble::{AssembleError, Assembler, Block, BlockAt, Slab};
use mixfeed_server::exec::Format;
use mixfeed_server::exec::device::{Device, DeviceError, Input, Mixer, Progress, RowMade, Scenes, Worker};
use mixfeed_server::job::{self, Executors, Jobs, MadeBy, Took};
use mixfeed_server::plan::Row;
use mixfeed_server::{StartError, config, store};
use stand::{Server, sources, spec};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Fails every time, having spoilt the rows.
struct Broken(DeviceError, Arc<AtomicUsize>);

impl Mixer<Slab> for Broken {
    fn run(
        &mut self,
        rows: &[Row],
        input: &Input<Slab>,
        _: &Format,
        out: &mut [u8],
    ) -> Result<Progress, DeviceError> {
        let Input::Decoded(pictures) = input else { panic!("a device gets pictures as they were decoded") };
        assert_eq!(pictures.len(), rows.len());
        self.1.fetch_add(1, SeqCst);
        out.fill(0xa5);
        Err(self.0.clone())
    }

    fn scenes(&mut self, _: &[Row], _: &Scenes, _: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
        panic!("these jobs have pictures")
    }
}

fn numerics(name: &str) -> v1::JobSpec {
    v1::JobSpec { numerics: name.into(), ..spec() }
}

/// Two blocks of a job with these numerics, on a server whose device always fails like this; and how often it was asked.
async fn blocks(name: &str, error: DeviceError) -> (Vec<Result<Block, AssembleError>>, usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let worker: Worker<Slab> = Worker::start(move || Ok(Broken(error, count))).unwrap();
    let assembler = Assembler::new(2, 2, 1 << 20).unwrap().with_device(Some(worker));
    let job = job::resolve("job", numerics(name), &sources()).unwrap().open(&store::memory()).unwrap();
    let mut made = Vec::new();
    for step in 0..2 {
        let at = BlockAt { step, slot: 0, places: job.feed.order.step(step)[..3].to_vec() };
        made.push(assembler.block(job.feed.clone(), at, None, &assembler.turns()).await);
    }
    (made, asked.load(SeqCst))
}

#[tokio::test]
async fn a_tolerant_job_goes_on_with_the_cpu_and_others_end() {
    let memory = DeviceError::Memory("full".into());
    let (cpu, asked) = blocks("cpu-1", memory.clone()).await;
    assert_eq!(asked, 0, "a job of the CPU never sees the device");
    let cpu: Vec<Block> = cpu.into_iter().map(Result::unwrap).collect();
    for (error, asks) in [(memory, 2), (DeviceError::Lost("gone".into()), 1)] {
        let (tolerant, asked) = blocks("tolerant", error.clone()).await;
        assert_eq!(asked, asks, "a lost device is asked once, one that is full again and again");
        for (block, cpu) in tolerant.into_iter().map(Result::unwrap).zip(&cpu) {
            assert!(block.tensors[0].bytes == cpu.tensors[0].bytes, "the rows that the CPU makes");
            assert_eq!(block.by, MadeBy::CPU);
        }
        let (strict, asked) = blocks("torch-1", error.clone()).await;
        assert_eq!(asked, asks);
        for block in strict {
            assert!(matches!(block, Err(AssembleError::Device(told)) if told == error));
        }
    }
}

/// Jobs of a server with two executors whose blocks take as many milliseconds each; and how often they were timed.
fn jobs(store: &store::Shared, millis: Result<(u64, u64), &'static str>) -> (Jobs, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let measure = move |feed: &job::Feed| {
        count.fetch_add(1, SeqCst);
        assert!(feed.image().is_some(), "only jobs of pictures are timed");
        let took =
            |(cpu, device)| Took { cpu: Duration::from_millis(cpu), device: Duration::from_millis(device) };
        millis.map(took).map_err(str::to_owned)
    };
    let jobs = Jobs::new(sources(), 9, store.clone()).with_executors(Executors::Faster(Arc::new(measure)));
    (jobs, asked)
}

fn opened(jobs: &Jobs, name: &str, spec: &v1::JobSpec, expected: &[u8]) -> (String, [u8; 32]) {
    let (job, _) = jobs.open(name, Some(spec.clone()), expected).unwrap();
    (job.spec.numerics.clone(), job.digest)
}

#[test]
fn the_faster_executor_is_chosen_once_and_recorded() {
    let kept = store::memory();
    let (fast, asked) = jobs(&kept, Ok((3, 2)));
    let first = opened(&fast, "job", &spec(), &[]);
    assert_eq!(first.0, "torch-1");
    assert_eq!(opened(&fast, "job", &spec(), &[]), first, "who comes later attaches");
    assert_eq!(asked.load(SeqCst), 1);
    fast.close("job").unwrap();
    drop(fast);
    let (slow, asked) = jobs(&kept, Ok((2, 3)));
    assert_eq!(opened(&slow, "job", &spec(), &[]), first, "what was recorded holds on a slower day");
    assert_eq!(asked.load(SeqCst), 0);
    assert_eq!(opened(&slow, "other", &spec(), &[]).0, "cpu-1");
    assert_eq!(
        opened(&slow, "known", &spec(), &first.1),
        first,
        "a client that knows the digest gets that job"
    );
    for numerics in ["cpu-1", "torch-1", "tolerant"] {
        let named = v1::JobSpec { numerics: numerics.into(), ..spec() };
        assert_eq!(opened(&slow, numerics, &named, &[]).0, numerics, "a job that says which is not timed");
    }
    assert_eq!(asked.load(SeqCst), 1);
    slow.forget("job").unwrap();
    assert_eq!(opened(&slow, "job", &spec(), &[]).0, "cpu-1", "forgotten with the rest of its state");
    let (broken, _) = jobs(&store::memory(), Err("no such file"));
    assert_eq!(opened(&broken, "job", &spec(), &[]).0, "cpu-1");
}

/// Counts blocks and leaves them as they are, or fails.
struct Idle(Arc<AtomicUsize>, Option<DeviceError>);

impl Mixer<Slab> for Idle {
    fn run(&mut self, _: &[Row], _: &Input<Slab>, _: &Format, _: &mut [u8]) -> Result<Progress, DeviceError> {
        self.0.fetch_add(1, SeqCst);
        self.1.clone().map_or(Ok(Progress::Done), Err)
    }

    fn scenes(&mut self, _: &[Row], _: &Scenes, _: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
        panic!("these jobs have pictures")
    }
}

#[test]
fn a_block_is_made_both_ways_to_compare_executors() {
    for error in [None, Some(DeviceError::Memory("full".into()))] {
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, fails) = (asked.clone(), error.clone());
        let worker: Worker<Slab> = Worker::start(move || Ok(Idle(count, fails))).unwrap();
        let assembler = Assembler::new(2, 2, 1 << 20).unwrap().with_device(Some(worker));
        let job = job::resolve("job", spec(), &sources()).unwrap();
        match (assembler.compare(&job.feed), error) {
            (Ok(took), None) => {
                assert!(
                    took.cpu > Duration::ZERO && took.device > Duration::ZERO && took.cpu < Duration::MAX
                );
                assert_eq!(asked.load(SeqCst), 4);
            }
            (Err(AssembleError::Device(told)), Some(error)) => assert_eq!(told, error),
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_without_a_device_takes_tolerant_jobs_and_says_who_mixed() {
    let server = Server::start(sources()).await;
    let client = server.open(&numerics("tolerant")).await;
    let batch = &stand::pull(&client, 0, 1, 0, 1).await[0];
    assert_eq!(batch.numerics(), "cpu-1");
    let receipt = batch.receipt().unwrap();
    assert_eq!(receipt.numerics, "cpu-1");
    let options = StreamOptions { start: Start::Step(0), ..Default::default() };
    let again = client.stream("job", options).await.unwrap().next_batch().await.unwrap().unwrap();
    assert!(stand::bytes(batch) == stand::bytes(&again));
}

async fn start(device: Device) -> Result<(), StartError> {
    let listen = vec!["127.0.0.1:0".into()];
    let settings = config::Server { listen, http: String::new(), device, ..Default::default() };
    let (_stop, stopped) = watch::channel(false);
    mixfeed_server::start(&settings, sources(), BTreeMap::new(), None, stopped).await.map(drop)
}

#[tokio::test]
async fn a_device_that_is_not_there_keeps_a_server_from_starting_and_says_what_to_do() {
    let error = start(Device::Cuda(4096)).await.unwrap_err().to_string();
    assert!(error.starts_with("`server.device`: "), "{error}");
    let hint = if cfg!(feature = "libtorch") { "libtorch_cuda.so" } else { "--features libtorch" };
    assert!(error.contains(hint), "{error}");
    start(Device::Auto).await.unwrap();
}

/// Tensors of a batch of pictures: pixels, then what does not depend on who mixed them.
#[cfg(feature = "libtorch")]
const NAMES: [&str; 10] = [
    "image",
    "label.class",
    "label.weight",
    "sample.group",
    "sample.index",
    "sample.flags",
    "plan.policy",
    "plan.partner",
    "plan.lambda",
    "plan.box",
];

#[cfg(feature = "libtorch")]
#[tokio::test]
async fn libtorch_mixes_what_the_cpu_mixes_within_a_level() {
    let server = Server::with(sources(), |settings| settings.device = Device::Torch).await;
    let torch = &stand::pull(&server.open(&spec()).await, 0, 1, 3, 2).await;
    let client = server.client().await;
    client.close_job("job").await.unwrap();
    let cpu = &stand::pull(&server.open(&numerics("cpu-1")).await, 0, 1, 3, 2).await;
    client.close_job("job").await.unwrap();
    let tolerant = &stand::pull(&server.open(&numerics("tolerant")).await, 0, 1, 3, 2).await;
    for ((torch, cpu), tolerant) in torch.iter().zip(cpu).zip(tolerant) {
        assert_eq!((torch.numerics(), cpu.numerics(), tolerant.numerics()), ("torch-1", "cpu-1", "torch-1"));
        assert_eq!(torch.receipt().unwrap().numerics, "torch-1");
        let (a, b) = (stand::bytes(torch), stand::bytes(cpu));
        let names: Vec<&str> = a.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, NAMES);
        assert!(a[1..] == b[1..], "labels, ids and plans are the same bytes");
        assert_eq!(torch.images().unwrap().dtype, Dtype::U8, "a byte is a level");
        let (a, b) = (&a[0].1, &b[0].1);
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1));
        assert!(stand::bytes(torch) == stand::bytes(tolerant));
    }
}

/// libtorch's own end would take away what a block in the making works with: one stop in four crashed.
#[cfg(feature = "libtorch")]
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_beside_a_block_in_the_making_is_no_crash() {
    let folder = tempfile::tempdir().unwrap();
    let photos =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/photos").canonicalize().unwrap();
    let text = format!(
        "[server]\ndevice = \"torch\"\ndrain_timeout = 600\n\n\
         [sources.photos]\nkind = \"folder\"\npath = {photos:?}\n\n\
         [jobs.job]\nseed = 3\nglobal_batch = 8\nmix_block = 8\ngroups = [{{ group = \"photos\" }}]\n\
         image = {{ height = 160, width = 224, color_jitter = {{ hue = 0.1 }} }}\n"
    );
    let config = folder.path().join("mixfeed.toml");
    std::fs::write(&config, text).unwrap();
    for _ in 0..6 {
        let mut server = serving::Serving::start(config.to_str().unwrap());
        let client = Client::connect([server.endpoint.clone()]).await.unwrap();
        let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
        stream.next_batch().await.unwrap().unwrap();
        server.tell("-TERM");
        assert_eq!(server.signal("-INT").code(), Some(130));
    }
}
