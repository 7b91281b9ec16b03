use super::*;
use crate::batch::{Dtype, Layout, Raster};
use crate::exec::device::Lent;
use crate::plan::Row;

/// Answers as the first byte of the block says; otherwise copies.
struct Moody;

impl Mixer<Vec<u8>> for Moody {
    fn run(
        &mut self,
        rows: &[Row],
        input: &Input<Vec<u8>>,
        _: &Format,
        out: &mut [u8],
    ) -> Result<Progress, DeviceError> {
        assert!(rows.is_empty(), "these blocks have no plan");
        let Input::Clean(clean) = input else { panic!("clean rows") };
        match clean[0] {
            1 => Err(DeviceError::Memory("full".into())),
            2 => Err(DeviceError::Lost("fell off the bus".into())),
            3 => panic!("a defect"),
            _ => {
                out.copy_from_slice(clean);
                Ok(Progress::Done)
            }
        }
    }

    /// As the share says.
    fn scenes(&mut self, _: &[Row], block: &Scenes, out: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
        out.fill(0xa5);
        match block.share {
            1 => Err(DeviceError::Refused { slot: 4 }),
            2 => Err(DeviceError::Lost("fell off the bus".into())),
            3 => panic!("a defect"),
            share => Ok(vec![RowMade { points: share as u64, ..RowMade::default() }]),
        }
    }
}

fn scene_task(share: usize) -> SceneTask<Vec<u8>> {
    let block = Scenes { scenes: Vec::new(), share, centres: vec![], voxels: None, features: vec![] };
    SceneTask { plan: Plan::default(), block: Box::new(block), out: vec![0; 3] }
}

fn task(first: u8) -> Task<Vec<u8>> {
    let raster = Raster::new(1, 1, Layout::Nchw);
    let format = Format { raster, dtype: Dtype::U8, normalize: None };
    Task { plan: Plan::default(), format, input: Input::Clean(vec![first, 9, 9]), out: vec![0; 3] }
}

fn error(worker: &Worker<Vec<u8>>, first: u8) -> DeviceError {
    let failed = worker.run(task(first)).expect_err("the device fails");
    let task = failed.task.expect("the block comes back");
    assert!(matches!(task.input, Input::Clean(clean) if clean == [first, 9, 9]));
    failed.error
}

#[test]
fn blocks_come_back_mixed_or_with_the_reason_until_the_device_is_lost() {
    let worker = Worker::start(|| Ok(Moody)).expect("it starts");
    assert_eq!(worker.run(task(0)).expect("mixed").out, [0, 9, 9]);
    assert_eq!(error(&worker, 1), DeviceError::Memory("full".into()));
    assert_eq!(error(&worker, 3), DeviceError::Failed("a defect".into()));
    assert_eq!(worker.run(task(7)).expect("a panic ends one block only").out, [7, 9, 9]);
    assert!(!worker.lost());
    let lost = DeviceError::Lost("fell off the bus".into());
    assert_eq!(error(&worker, 2), lost);
    assert_eq!(error(&worker, 0), lost, "it is not asked again");
    assert!(worker.lost());
}

#[test]
fn scenes_come_back_with_what_they_became_or_with_the_reason() {
    let worker = Worker::start(|| Ok(Moody)).expect("it starts");
    let (own, made) = worker.scenes(scene_task(7)).expect("made");
    assert_eq!((own.out, own.block.share, made[0].points), (vec![0xa5; 3], 7, 7));
    let error = |share| {
        let failed = worker.scenes(scene_task(share)).expect_err("the device fails");
        let task = failed.task.expect("the block comes back");
        assert_eq!((task.block.share, task.out.len()), (share, 3));
        failed.error
    };
    assert_eq!(error(1), DeviceError::Refused { slot: 4 });
    assert_eq!(error(3), DeviceError::Failed("a defect".into()));
    assert_eq!(worker.run(task(8)).expect("pictures go on").out, [8, 9, 9]);
    let lost = DeviceError::Lost("fell off the bus".into());
    assert!(!worker.lost());
    assert_eq!(error(2), lost);
    assert!(worker.lost());
    assert_eq!(error(7), lost, "it is not asked again");
    let failed = worker.run(task(0)).expect_err("nor for pictures");
    assert_eq!(failed.error, lost);
    worker.close();
    assert_eq!(error(7), DeviceError::Lost("the server stops".into()));
}

/// Notes what is asked of it, by the first byte of the block; fails or panics at one step of block 2.
struct Queued {
    notes: Arc<Mutex<Vec<String>>>,
    bad: Option<(&'static str, DeviceError)>,
    begun: u8,
    waited: u8,
}

impl Queued {
    fn note(&mut self, step: &str, block: u8) -> Result<(), DeviceError> {
        self.notes.lock().expect("no panic holds it").push(format!("{step} {block}"));
        match &self.bad {
            Some((bad, error)) if *bad == step && block == 2 => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

fn first(input: &Input<Vec<u8>>) -> u8 {
    match input {
        Input::Clean(clean) => clean[0],
        Input::Decoded(_) => panic!("clean rows"),
    }
}

impl Mixer<Vec<u8>> for Queued {
    fn stage(&mut self, input: &Input<Vec<u8>>, _: &Format) -> Result<(), DeviceError> {
        self.note("stage", first(input))
    }
    fn run(
        &mut self,
        _: &[Row],
        input: &Input<Vec<u8>>,
        _: &Format,
        _: &mut [u8],
    ) -> Result<Progress, DeviceError> {
        self.begun = first(input);
        self.note("run", self.begun)?;
        Ok(Progress::Begun)
    }
    fn wait(&mut self) -> Result<(), DeviceError> {
        self.waited = self.begun;
        self.note("wait", self.waited)
    }
    fn collect(&mut self, out: &mut [u8]) -> Result<(), DeviceError> {
        out[0] = self.waited;
        self.note("collect", self.waited)
    }
    fn scenes(&mut self, _: &[Row], block: &Scenes, _: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
        self.note("scenes", block.share as u8)?;
        Ok(Vec::new())
    }
}

/// What is asked when blocks 1, 2 and 3 stand in the queue, and what is answered.
fn queued(bad: Option<(&'static str, DeviceError)>) -> (String, Vec<Result<u8, DeviceError>>) {
    let (queue, tasks) = sync_channel(3);
    let answers: Vec<_> = (1..=3)
        .map(|block| {
            let (answer, answered) = sync_channel(1);
            queue.send(Wish::Pictures(Ask { task: task(block), answer })).expect("there is room");
            answered
        })
        .collect();
    drop(queue);
    let notes = Arc::new(Mutex::new(Vec::new()));
    serve(
        Queued { notes: notes.clone(), bad, begun: 0, waited: 0 },
        &tasks,
        &AtomicBool::new(false),
        &AtomicBool::new(false),
    );
    let answers = answers.into_iter().map(|answered| {
        let (task, result) = answered.recv().expect("every block is answered");
        result.map(|()| task.out[0])
    });
    let answers = answers.collect();
    (notes.lock().expect("no panic holds it").join(", "), answers)
}

#[test]
fn the_next_block_is_staged_while_the_device_works_and_begun_before_rows_are_copied() {
    let (asked, answers) = queued(None);
    assert_eq!(
        asked,
        "stage 1, run 1, stage 2, wait 1, run 2, collect 1, stage 3, wait 2, run 3, collect 2, wait 3, collect 3"
    );
    assert_eq!(answers, [Ok(1), Ok(2), Ok(3)]);
}

#[test]
fn scenes_are_made_when_the_pictures_before_them_are_collected() {
    for bad in [None, Some(("scenes", DeviceError::Memory("full".into())))] {
        let (queue, tasks) = sync_channel(3);
        let pictures = |block| {
            let (answer, answered) = sync_channel(1);
            queue.send(Wish::Pictures(Ask { task: task(block), answer })).expect("there is room");
            answered
        };
        let first = pictures(1);
        let (answer, scenes) = sync_channel(1);
        queue.send(Wish::Scenes(Ask { task: scene_task(2), answer })).expect("there is room");
        let last = pictures(3);
        drop(queue);
        let notes = Arc::new(Mutex::new(Vec::new()));
        let (error, off) = (bad.as_ref().map(|(_, error)| error.clone()), AtomicBool::new(false));
        serve(Queued { notes: notes.clone(), bad, begun: 0, waited: 0 }, &tasks, &off, &off);
        assert_eq!(
            notes.lock().expect("no panic holds it").join(", "),
            "stage 1, run 1, wait 1, collect 1, scenes 2, stage 3, run 3, wait 3, collect 3"
        );
        let answered: Vec<_> = [first, last].map(|a| a.recv().expect("every block is answered").1).into();
        assert_eq!(answered, [Ok(()), Ok(())]);
        assert_eq!(scenes.recv().expect("every block is answered").1, error.map_or(Ok(vec![]), Err));
    }
}

#[test]
fn a_block_that_fails_on_its_way_takes_no_other_with_it() {
    for step in ["stage", "run", "wait", "collect"] {
        let full = DeviceError::Memory("full".into());
        let (_, answers) = queued(Some((step, full.clone())));
        assert_eq!(answers, [Ok(1), Err(full), Ok(3)], "{step}");
    }
    let lost = DeviceError::Lost("fell off the bus".into());
    let (asked, answers) = queued(Some(("wait", lost.clone())));
    assert_eq!(answers, [Ok(1), Err(lost.clone()), Err(lost)]);
    assert!(asked.ends_with("stage 3, wait 2"), "it is not asked again: {asked}");
}

/// Lends its rows.
struct Lends;

impl Mixer<Vec<u8>> for Lends {
    fn run(
        &mut self,
        _: &[Row],
        _: &Input<Vec<u8>>,
        _: &Format,
        _: &mut [u8],
    ) -> Result<Progress, DeviceError> {
        Ok(Progress::Begun)
    }
    fn lend(&mut self, bytes: usize) -> Option<Lent> {
        Some(Lent::new(vec![7; bytes]))
    }
    fn collect(&mut self, _: &mut [u8]) -> Result<(), DeviceError> {
        panic!("these were lent")
    }
    fn scenes(&mut self, _: &[Row], _: &Scenes, _: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
        panic!("no scenes")
    }
}

#[test]
fn rows_that_are_lent_take_the_place_of_the_blocks_own() {
    let worker = Worker::start(|| Ok(Lends)).expect("it starts");
    assert_eq!(worker.run(task(0)).expect("made").out, [7; 3]);
}

/// Says when it is given back.
struct Told(Arc<AtomicBool>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Mixer<Vec<u8>> for Told {
    fn run(
        &mut self,
        _: &[Row],
        _: &Input<Vec<u8>>,
        _: &Format,
        _: &mut [u8],
    ) -> Result<Progress, DeviceError> {
        Ok(Progress::Done)
    }
    fn scenes(&mut self, _: &[Row], _: &Scenes, _: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_device_that_is_closed_is_given_back_and_later_blocks_come_back() {
    let given = Arc::new(AtomicBool::new(false));
    let flag = given.clone();
    let worker = Worker::start(move || Ok(Told(flag))).expect("it starts");
    worker.run(task(0)).expect("it works");
    assert!(!given.load(Ordering::SeqCst) && !worker.lost());
    worker.close();
    assert!(given.load(Ordering::SeqCst) && worker.lost());
    assert_eq!(error(&worker, 5), DeviceError::Lost("the server stops".into()));
    worker.close(); // once more does no harm
}

#[test]
fn closing_waits_for_the_block_that_is_made_and_not_for_the_queue() {
    let (queue, tasks) = sync_channel(4);
    let answers: Vec<_> = (1..=2)
        .map(|block| {
            let (answer, answered) = sync_channel(1);
            queue.send(Wish::Pictures(Ask { task: task(block), answer })).expect("there is room");
            answered
        })
        .collect();
    let (notes, closed) = (Arc::new(Mutex::new(Vec::new())), AtomicBool::new(false));
    /// Closes the worker while block 1 is begun.
    struct Closes<'a>(Queued, &'a AtomicBool);
    impl Mixer<Vec<u8>> for Closes<'_> {
        fn run(
            &mut self,
            rows: &[Row],
            input: &Input<Vec<u8>>,
            format: &Format,
            out: &mut [u8],
        ) -> Result<Progress, DeviceError> {
            self.1.store(true, Ordering::SeqCst);
            self.0.run(rows, input, format, out)
        }
        fn wait(&mut self) -> Result<(), DeviceError> {
            self.0.wait()
        }
        fn collect(&mut self, out: &mut [u8]) -> Result<(), DeviceError> {
            self.0.collect(out)
        }
        fn scenes(&mut self, _: &[Row], _: &Scenes, _: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
            panic!("no scenes stand in the queue")
        }
    }
    let mixer = Closes(Queued { notes: notes.clone(), bad: None, begun: 0, waited: 0 }, &closed);
    serve(mixer, &tasks, &AtomicBool::new(false), &closed);
    assert_eq!(*notes.lock().expect("no panic holds it"), ["run 1", "wait 1"]);
    for answered in answers {
        let (_, result) = answered.recv().expect("every block is answered");
        assert_eq!(result, Err(DeviceError::Lost("the server stops".into())));
    }
}

#[test]
fn many_threads_share_one_device() {
    let worker = Worker::start(|| Ok(Moody)).expect("it starts");
    thread::scope(|scope| {
        for i in 10..40 {
            let worker = worker.clone();
            scope.spawn(move || assert_eq!(worker.run(task(i)).expect("mixed").out, [i, 9, 9]));
        }
    });
}

#[test]
fn what_cannot_be_opened_is_told() {
    let absent = DeviceError::Absent { index: 1, found: 0, hint: "none".into() };
    let told = absent.clone();
    let error = Worker::<Vec<u8>>::start(move || Err::<Moody, _>(told)).expect_err("absent");
    assert_eq!(error, absent);
    let error = Worker::<Vec<u8>>::start(|| -> Result<Moody, _> { panic!("no driver") });
    assert_eq!(error.expect_err("a panic"), DeviceError::Failed("no driver".into()));
}
