//! Jobs of scenes on a server with a device: who makes which block of what, and that the bytes are the CPU's where they
//! must be.

use crate::rooms::{encoded, memory, plain, room, rooms, spec};
use crate::stand::Server;
use crate::stand_in::{Mood, Seen, StandIn};
use crate::{batches, bytes};
use mixfeed_client::Replay;
use mixfeed_proto as v1;
use mixfeed_server::assemble::{AssembleError, Assembler, Block, BlockAt};
use mixfeed_server::exec::device::{DeviceError, RowMade, Worker};
use mixfeed_server::job::{self, Executors, Jobs, MadeBy, Took};
use mixfeed_server::wire::Columns;
use mixfeed_server::{Sources, metrics, store};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The blocks of a step of `spec` with these numerics, on a server with such a device; and what that was asked for.
async fn step(
    spec: &v1::JobSpec,
    sources: &Sources,
    numerics: &str,
    mood: &Mood,
) -> (Vec<Result<Block, AssembleError>>, Seen) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (own, mood) = (seen.clone(), mood.clone());
    let worker = Worker::start(move || Ok(StandIn(mood, own))).unwrap();
    let assembler = Assembler::new(2, 2, 1 << 20).unwrap().with_device(Some(worker));
    let spec = v1::JobSpec { numerics: numerics.into(), ..spec.clone() };
    let job = job::resolve("job", spec, sources).unwrap().open(&store::memory()).unwrap();
    let mut made = Vec::new();
    for (slot, places) in (0..).step_by(4).zip(job.feed.order.step(1).chunks(4)) {
        let at = BlockAt { step: 1, slot, places: places.to_vec() };
        let (_, sent) = Assembler::cost(&job.feed, &at);
        let memory = Arc::new(Semaphore::new(1));
        let permit = memory.clone().try_acquire_owned().ok();
        let block = assembler.block(job.feed.clone(), at, permit, &assembler.turns()).await;
        if let Ok(block) = &block {
            assert!(block.tensors.iter().map(|piece| piece.bytes.len()).sum::<usize>() <= sent);
            assert_eq!(memory.available_permits(), 0, "held until its columns were sent");
        }
        made.push(block);
    }
    let seen = *seen.lock().unwrap();
    (made, seen)
}

/// The same, of a device or CPU that makes every block.
async fn whole(spec: &v1::JobSpec, sources: &Sources, numerics: &str, mood: &Mood) -> (Vec<Block>, Seen) {
    let (blocks, seen) = step(spec, sources, numerics, mood).await;
    (blocks.into_iter().map(Result::unwrap).collect(), seen)
}

/// Whether `blocks` are `wanted` in everything but who made them.
fn assert_same(blocks: &[Block], wanted: &[Block], by: MadeBy, what: &str) {
    assert_eq!(blocks.len(), wanted.len());
    for (block, wanted) in blocks.iter().zip(wanted) {
        assert_eq!(block.by, by, "{what}");
        assert_eq!((&block.plan, &block.samples), (&wanted.plan, &wanted.samples), "{what}");
        assert_eq!((&block.extent, &block.scenes), (&wanted.extent, &wanted.scenes), "{what}");
        let columns = |block: &Block| -> Vec<_> { block.tensors.iter().map(|t| t.bytes.clone()).collect() };
        assert!(columns(block) == columns(wanted), "{what}: other bytes");
    }
}

fn voxels(change: impl Fn(&mut v1::VoxelSpec)) -> v1::JobSpec {
    let mut spec = spec();
    change(spec.points.as_mut().unwrap().voxel.as_mut().unwrap());
    spec
}

/// With so many points a step.
pub fn budget_of(mut spec: v1::JobSpec, points: u64) -> v1::JobSpec {
    spec.points.as_mut().unwrap().max_points = points;
    spec
}

/// With every row mixed by this policy.
pub fn one_policy(name: &str) -> v1::JobSpec {
    let mut spec = spec();
    let mix = spec.mix.as_mut().unwrap();
    mix.policies.retain(|policy| policy.name == name);
    mix.gate_prob = Some(1.0);
    spec
}

/// One room of ten is not finite, and one has no room for its instances beside others.
fn some_bad() -> Sources {
    let mut records = rooms(8);
    let mut nan = room(1, 200);
    nan.coord[7][1] = f64::NAN;
    let mut many = room(2, 200);
    many.instance.as_mut().unwrap()[3] = 1 << 25;
    records.push(("nan".into(), encoded(&nan), "rooms".into()));
    records.push(("many".into(), encoded(&many), "rooms".into()));
    memory(records)
}

#[tokio::test]
async fn what_a_device_makes_as_it_is_asked_to_is_the_block_of_the_cpu() {
    let bare = {
        let mut spec = spec();
        spec.points.as_mut().unwrap().voxel = None;
        spec
    };
    let majority = voxels(|v| {
        (v.majority, v.count) = (true, false);
        v.pick = v1::VoxelPick::Random as i32;
    });
    let cases = [
        ("every transform and voxels", spec()),
        ("drawn points and classes of voxels", majority),
        ("voxels alone", voxels(|v| (v.inverse, v.count) = (false, false))),
        ("points", bare.clone()),
        ("as stored", plain()),
        ("over budget", budget_of(bare, 12 * 200)),
        ("voxels over budget", budget_of(spec(), 12 * 200)),
        ("unions", one_policy("mix3d")),
        ("sectors and objects", one_policy("polarmix")),
        ("bands", one_policy("lasermix")),
    ];
    let (mut thinned, mut replaced) = (0, 0);
    for sources in [memory(rooms(9)), some_bad()] {
        for (what, spec) in &cases {
            let (cpu, seen) = whole(spec, &sources, "cpu-1", &Mood::Works).await;
            assert_eq!(seen, Seen::default(), "a job of the CPU never sees the device");
            let (torch, seen) = whole(spec, &sources, "torch-1", &Mood::Works).await;
            assert_eq!(seen, Seen { blocks: 3, made: 12, stored: 0 }, "{what}: the CPU's coordinates");
            assert_same(&torch, &cpu, MadeBy::DEVICE, what);
            let (tolerant, seen) = whole(spec, &sources, "tolerant", &Mood::Works).await;
            assert_eq!(seen, Seen { blocks: 3, made: 0, stored: 12 }, "{what}");
            assert_same(&tolerant, &cpu, MadeBy::DEVICE, what);
            thinned += cpu.iter().flat_map(|block| &block.scenes).filter(|row| row.flags != 0).count();
            replaced += cpu.iter().flat_map(|block| &block.samples).filter(|s| s.replaced.is_some()).count();
        }
    }
    assert!(thinned > 10 && replaced > 5, "{thinned} rows thinned, {replaced} records replaced");
}

#[tokio::test]
async fn a_tolerant_job_goes_on_with_the_cpu_and_others_end() {
    let sources = memory(rooms(9));
    let memory = DeviceError::Memory("full".into());
    let lost = DeviceError::Lost("gone".into());
    for spec in [spec(), plain()] {
        let (cpu, _) = whole(&spec, &sources, "cpu-1", &Mood::Works).await;
        for (mood, told, asked) in [
            (Mood::Fails(memory.clone()), memory.clone(), Seen { blocks: 3, made: 0, stored: 12 }),
            (Mood::Fails(lost.clone()), lost.clone(), Seen { blocks: 1, made: 0, stored: 4 }),
            (Mood::Panics, DeviceError::Failed("a defect".into()), Seen { blocks: 3, made: 0, stored: 12 }),
        ] {
            let (tolerant, seen) = whole(&spec, &sources, "tolerant", &mood).await;
            assert_eq!(seen, asked, "a lost device is asked once, others again and again");
            assert_same(&tolerant, &cpu, MadeBy::CPU, "after a failure");
            let (strict, seen) = step(&spec, &sources, "torch-1", &mood).await;
            assert_eq!((seen.blocks, seen.stored), (asked.blocks, 0));
            for block in strict {
                assert!(matches!(block, Err(AssembleError::Device(error)) if error == told));
            }
        }
    }
}

#[tokio::test]
async fn what_a_device_says_must_fit_its_block() {
    let sources = memory(rooms(9));
    let (cpu, _) = whole(&spec(), &sources, "cpu-1", &Mood::Works).await;
    let lies: [fn(&mut Vec<RowMade>); 6] = [
        |rows| rows.truncate(2),
        |rows| rows[1].points = rows[1].inverse + 1,
        |rows| rows[2].inverse = rows[2].united + 1,
        |rows| rows[0].scenes[0].0 = 4,
        |rows| rows[3].scenes[0].1 = u64::MAX,
        |rows| {
            let row = &mut rows[0];
            (row.united, row.inverse, row.points) = (1 << 30, 1 << 30, 1 << 30);
            row.scenes = vec![(0, 1 << 30)];
        },
    ];
    for lie in lies {
        let (tolerant, _) = whole(&spec(), &sources, "tolerant", &Mood::Lies(lie)).await;
        assert_same(&tolerant, &cpu, MadeBy::CPU, "after a lie");
        let (strict, _) = step(&spec(), &sources, "torch-1", &Mood::Lies(lie)).await;
        let failed = |block: &Result<Block, _>| matches!(block, Err(AssembleError::Device(DeviceError::Failed(why))) if why.contains("fit"));
        assert!(strict.iter().all(failed));
    }
}

/// Rooms of which one is too wide for voxels of 1e-6.
fn one_wide() -> Sources {
    let mut records = rooms(8);
    let mut wide = room(3, 200);
    wide.coord.iter_mut().flatten().for_each(|c| *c *= 1000.0);
    records.push(("wide".into(), encoded(&wide), "rooms".into()));
    memory(records)
}

#[tokio::test]
async fn what_only_the_cpu_may_refuse_is_made_by_the_cpu_and_is_no_failure() {
    let recorder = metrics::install("cpu-1").unwrap();
    let (sources, mut fine) = (one_wide(), plain());
    fine.points.as_mut().unwrap().voxel = Some(v1::VoxelSpec { size: 1e-6, ..Default::default() });
    let (cpu, _) = whole(&fine, &sources, "cpu-1", &Mood::Works).await;
    let replaced = |block: &Block| block.samples.iter().any(|sample| sample.replaced.is_some());
    assert!(cpu.iter().any(replaced) && !cpu.iter().all(replaced), "one of three blocks has it");
    let (tolerant, seen) = whole(&fine, &sources, "tolerant", &Mood::Works).await;
    assert_eq!(seen.blocks, 3);
    for (block, cpu) in tolerant.iter().zip(&cpu) {
        let by = if replaced(cpu) { MadeBy::CPU } else { MadeBy::DEVICE };
        assert_same(std::slice::from_ref(block), std::slice::from_ref(cpu), by, "one is replaced");
    }
    // In a `torch-1` job the CPU has refused it before.
    let (torch, _) = whole(&fine, &sources, "torch-1", &Mood::Works).await;
    assert_same(&torch, &cpu, MadeBy::DEVICE, "one was replaced");
    // A device that fails leaves the CPU scenes that it must refuse.
    let full = Mood::Fails(DeviceError::Memory("full".into()));
    let (tolerant, _) = whole(&fine, &sources, "tolerant", &full).await;
    assert_same(&tolerant, &cpu, MadeBy::CPU, "one is replaced after a failure");
    let (cpu, _) = whole(&spec(), &sources, "cpu-1", &Mood::Works).await;
    for numerics in ["tolerant", "torch-1"] {
        let refuses = Mood::Fails(DeviceError::Refused { slot: 2 });
        let (blocks, seen) = whole(&spec(), &sources, numerics, &refuses).await;
        assert_eq!(seen.blocks, 3);
        assert_same(&blocks, &cpu, MadeBy::CPU, numerics);
    }
    let text = metrics::render(&recorder);
    let fallbacks: Vec<_> =
        text.lines().filter(|l| l.starts_with("mixfeed_device_fallbacks_total")).collect();
    assert!(fallbacks.iter().any(|line| line.contains("\"memory\"")), "{fallbacks:?}");
    assert!(!fallbacks.iter().any(|line| line.contains("\"refused\"")), "{fallbacks:?}");
}

#[tokio::test]
async fn a_scene_with_much_noise_is_transformed_where_it_is_decoded() {
    let (sources, mut fine) = (memory(rooms(9)), spec());
    let points = fine.points.as_mut().unwrap();
    points.elastic = vec![v1::Elastic { granularity: 0.12, magnitude: 0.1 }];
    points.elastic_prob = Some(0.5);
    let (cpu, _) = whole(&fine, &sources, "cpu-1", &Mood::Works).await;
    let (tolerant, seen) = whole(&fine, &sources, "tolerant", &Mood::Works).await;
    assert!(seen.made > 0 && seen.stored > 0, "{seen:?}");
    assert_same(&tolerant, &cpu, MadeBy::DEVICE, "half of them are distorted");
}

#[tokio::test]
async fn a_tolerant_jobs_receipt_does_not_say_which_scenes_had_points_left() {
    let (sources, bands) = (memory(rooms(9)), one_policy("lasermix"));
    for (numerics, same) in [("tolerant", true), ("torch-1", false), ("cpu-1", false)] {
        let (mut blocks, _) = whole(&bands, &sources, numerics, &Mood::Works).await;
        let spec = v1::JobSpec { numerics: numerics.into(), ..bands.clone() };
        let feed = job::resolve("job", spec, &sources).unwrap().feed;
        let digest = |block: &Block| {
            let mut columns = Columns::new(&feed);
            columns.add(&feed, 0, block);
            columns.finish().1
        };
        let block = &mut blocks[0];
        let whole = digest(block);
        // As if no point of the partner lay in its bands.
        assert!(block.scenes[0].scenes.len() == 2 && block.scenes[0].scenes.pop().is_some());
        assert_eq!(digest(block) == whole, same, "{numerics}");
        // Another record is another batch to everyone.
        block.samples[0].id.index += 1;
        assert_ne!(digest(block), whole, "{numerics}");
    }
}

#[test]
fn jobs_of_scenes_get_the_numerics_of_the_server() {
    let sources = memory(rooms(9));
    let asked = Arc::new(AtomicUsize::new(0));
    let faster = |cpu, device| {
        let count = asked.clone();
        Executors::Faster(Arc::new(move |feed| {
            count.fetch_add(1, SeqCst);
            assert_eq!(feed.points().unwrap().numerics, job::Numerics::Torch);
            Ok(Took { cpu: Duration::from_millis(cpu), device: Duration::from_millis(device) })
        }))
    };
    for (executors, wanted) in [
        (Executors::Cpu, "cpu-1"),
        (Executors::Device, "torch-1"),
        (faster(3, 2), "torch-1"),
        (faster(2, 3), "cpu-1"),
    ] {
        let jobs = Jobs::new(sources.clone(), 9, store::memory()).with_executors(executors);
        assert_eq!(jobs.open("job", Some(spec()), &[]).unwrap().0.spec.numerics, wanted);
        let tolerant = v1::JobSpec { numerics: "tolerant".into(), ..spec() };
        let (job, _) = jobs.open("tolerant", Some(tolerant), &[]).unwrap();
        assert_eq!(job.feed.numerics(), job::Numerics::Tolerant);
    }
    assert_eq!(asked.load(SeqCst), 2, "only jobs that name none are timed");
    let jobs = Jobs::new(sources, 9, store::memory());
    let torch = v1::JobSpec { numerics: "torch-1".into(), ..spec() };
    let error = jobs.open("job", Some(torch), &[]).unwrap_err();
    assert!(matches!(error, job::JobError::NoDevice { .. }), "{error}");
}

#[test]
fn a_block_of_scenes_is_made_both_ways_to_compare_executors() {
    for (mood, told) in
        [(Mood::Works, None), (Mood::Fails(DeviceError::Failed("no".into())), Some("failed: no"))]
    {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let own = seen.clone();
        let worker = Worker::start(move || Ok(StandIn(mood, own))).unwrap();
        let assembler = Assembler::new(2, 2, 1 << 20).unwrap().with_device(Some(worker));
        let job = job::resolve("job", spec(), &some_bad()).unwrap();
        match (assembler.compare(&job.feed), told) {
            (Ok(took), None) => {
                assert!(took.cpu > Duration::ZERO && took.cpu < Duration::MAX);
                assert!(took.device > Duration::ZERO && took.device < Duration::MAX);
                assert_eq!(*seen.lock().unwrap(), Seen { blocks: 4, made: 16, stored: 0 });
            }
            (Err(error), Some(told)) => assert!(error.to_string().contains(told), "{error}"),
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_without_a_device_takes_tolerant_jobs_and_says_who_made_them() {
    let server = Server::start(memory(rooms(11))).await;
    let client = server.open(&v1::JobSpec { numerics: "tolerant".into(), ..spec() }).await;
    let batch = batches(&client, 0, 1, 1, 1).await.remove(0);
    let receipt = batch.receipt().unwrap().clone();
    assert_eq!((batch.numerics(), &*receipt.numerics), ("cpu-1", "cpu-1"));
    let again = client.replay("job", Replay::Receipt(receipt)).await.unwrap();
    assert!(bytes(&again, "coord") == bytes(&batch, "coord"));
    client.close_job("job").await.unwrap();
    let cpu = server.open(&spec()).await;
    assert!(bytes(&batches(&cpu, 0, 1, 1, 1).await[0], "feat") == bytes(&batch, "feat"));
}
