//! The thread that puts a dump on the disk, so that the model need not wait for it. What waits to be
//! written is bounded in bytes; once the bound is reached, whoever has more waits. Small steps gather for
//! some milliseconds: to take a CPU from the model's threads and to give it back costs more than to
//! write one. While there is much to write the thread has a CPU lent by the model's pool.
//!
//! A step's file is called `….part` until it is whole; then it gets its name, and its line in
//! `steps.jsonl` makes it part of the dump. The overview is written between two steps. After an error
//! nothing more is written: what was whole stays.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::format::{STEPS, StepRecord, TOKENS};
use super::storage::{Storage, Stored};
use crate::error::{Error, Result};
use crate::kernels::Pool;

/// Bytes that may wait.
const WAITING: usize = 16 << 20;
/// Bytes for which a CPU is asked for: a step of a generated token has more, a line has less.
const MUCH: usize = 16 << 10;
/// Bytes that are written at once; fewer wait until the thread was last called so long ago.
const AT_ONCE: usize = 1 << 20;
const REST: Duration = Duration::from_millis(50);
/// Used buffers that are kept for the next ones: of whole layers there are fewer at a time.
const SPARE_BUFFERS: usize = 16;

pub(super) struct Writer {
    shared: Arc<Shared>,
    folder: PathBuf,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Whose CPUs the model uses.
    pool: OnceLock<Arc<Pool>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Of the jobs that wait and of the one at hand.
    bytes: usize,
    /// When the thread was last called.
    called: Option<Instant>,
    busy: bool,
    closed: bool,
    /// Writing has failed; the error is there until somebody has been told.
    failed: bool,
    error: Option<Error>,
    committed: usize,
    spare: Vec<Buffer>,
}

enum Job {
    /// A line of `tokens.jsonl`.
    Token(Vec<u8>),
    /// A step's file begins with these bytes and will have this length. One that is not whole goes.
    Begin { file: String, bytes: Vec<u8>, len: usize },
    /// Pieces of `len` bytes, `apart` from one another in the file.
    Write { at: usize, len: usize, apart: usize, bytes: Buffer },
    /// The step is whole.
    Commit(StepRecord),
    /// A step, its file at once.
    Step(StepRecord, Buffer),
    /// A file that is no step's is whole, and gets its name.
    Name(&'static str),
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Job::Token(bytes) | Job::Begin { bytes, .. } => bytes.len(),
            Job::Write { bytes, .. } | Job::Step(_, bytes) => bytes.len(),
            Job::Commit(_) | Job::Name(_) => 0,
        }
    }
}

impl Writer {
    /// Starts the thread, on an empty folder with its `steps`.
    ///
    /// # Errors
    /// If the files of lines cannot be created, or the system gives no thread.
    pub fn start(folder: &Path, mut storage: impl Storage + 'static) -> Result<Writer> {
        let tokens = Lines::create(&mut storage, folder.join(TOKENS))?;
        let steps = Lines::create(&mut storage, folder.join(STEPS))?;
        let (queue, changed, pool) = (Mutex::default(), Condvar::new(), OnceLock::new());
        let shared = Arc::new(Shared { queue, changed, pool });
        let mut files =
            Files { folder: folder.to_path_buf(), storage: Box::new(storage), tokens, steps, part: None };
        let thread = std::thread::Builder::new().name("attend-dump".into()).spawn({
            let shared = shared.clone();
            move || files.serve(&shared)
        });
        let thread =
            thread.map_err(|cause| Error::Memory { what: "the thread that writes the dump", cause })?;
        Ok(Writer { shared, folder: folder.to_path_buf(), thread: Some(thread) })
    }

    /// Lets the thread ask for a CPU of this pool's, whose caller is the one who records.
    pub fn set_pool(&self, pool: Arc<Pool>) {
        // Of a second one nothing is asked for.
        let _ = self.shared.pool.set(pool);
    }

    pub fn token(&self, line: Vec<u8>) -> Result<()> {
        self.push(Job::Token(line))
    }

    pub fn begin(&self, file: String, bytes: Vec<u8>, len: usize) -> Result<()> {
        self.push(Job::Begin { file, bytes, len })
    }

    pub fn write(&self, at: usize, bytes: Buffer) -> Result<()> {
        let len = bytes.len();
        self.write_pieces(at, len, len, bytes)
    }

    /// Writes pieces of `len` bytes, `apart` from one another in the file; the first at `at`.
    pub fn write_pieces(&self, at: usize, len: usize, apart: usize, bytes: Buffer) -> Result<()> {
        self.push(Job::Write { at, len, apart, bytes })
    }

    pub fn commit(&self, record: StepRecord) -> Result<()> {
        self.push(Job::Commit(record))
    }

    /// Writes a whole step.
    pub fn step(&self, record: StepRecord, bytes: Buffer) -> Result<()> {
        self.push(Job::Step(record, bytes))
    }

    pub fn name(&self, file: &'static str) -> Result<()> {
        self.push(Job::Name(file))
    }

    /// A buffer of so many bytes, whatever they are.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn buffer(&self, len: usize) -> Result<Buffer> {
        let mut queue = self.shared.lock();
        let fits = queue.spare.iter().position(|buffer| buffer.room() >= len);
        let fitting = fits.map(|place| queue.spare.swap_remove(place));
        // Those that are too small are of no use any more: what comes later is as large.
        let _small = fitting.is_none().then(|| queue.spare.pop());
        drop(queue);
        let Some(mut buffer) = fitting else { return Buffer::new(len) };
        buffer.set_len(len);
        Ok(buffer)
    }

    /// Waits until all that was asked for is on the disk.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn flush(&self) -> Result<()> {
        let mut queue = self.shared.lock();
        self.call(&mut queue);
        while (!queue.jobs.is_empty() || queue.busy) && !queue.failed {
            queue = self.shared.wait(queue);
        }
        self.check(&mut queue)
    }

    /// Steps that are whole on the disk.
    pub fn committed(&self) -> usize {
        self.shared.lock().committed
    }

    fn push(&self, job: Job) -> Result<()> {
        let mut queue = self.shared.lock();
        while queue.bytes > 0 && queue.bytes + job.bytes() > WAITING && !queue.failed {
            self.call(&mut queue);
            queue = self.shared.wait(queue);
        }
        self.check(&mut queue)?;
        queue.bytes += job.bytes();
        queue.jobs.push_back(job);
        if queue.bytes >= AT_ONCE || queue.called.is_none_or(|called| called.elapsed() >= REST) {
            self.call(&mut queue);
        }
        Ok(())
    }

    /// Has the thread write what waits.
    fn call(&self, queue: &mut Queue) {
        queue.called = Some(Instant::now());
        if queue.bytes >= MUCH
            && let Some(pool) = self.shared.pool.get()
        {
            pool.lend();
        }
        self.shared.changed.notify_all();
    }

    fn check(&self, queue: &mut Queue) -> Result<()> {
        if !queue.failed {
            return Ok(());
        }
        Err(queue.error.take().unwrap_or_else(|| Error::Dump {
            path: self.folder.clone(),
            problem: "writing has failed before; nothing more is recorded".into(),
        }))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // Whoever wanted to know about errors has called `flush`.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's side.
struct Files {
    folder: PathBuf,
    storage: Box<dyn Storage>,
    tokens: Lines,
    steps: Lines,
    /// The step's file at hand, and its name.
    part: Option<(Box<dyn Stored>, PathBuf)>,
}

impl Files {
    fn serve(&mut self, shared: &Shared) {
        let mut queue = shared.lock();
        loop {
            let Some(job) = queue.jobs.pop_front() else {
                if let Some(pool) = shared.pool.get() {
                    pool.take_back();
                }
                if queue.closed {
                    break;
                }
                queue = shared.wait(queue);
                continue;
            };
            queue.busy = true;
            drop(queue);
            let bytes = job.bytes();
            let done = self.run(job);
            queue = shared.lock();
            queue.busy = false;
            queue.bytes -= bytes;
            match done {
                Ok(Done { spare, committed }) => {
                    queue.committed += usize::from(committed);
                    let spare = spare.filter(|_| queue.spare.len() < SPARE_BUFFERS);
                    queue.spare.extend(spare);
                }
                Err(error) => {
                    queue.failed = true;
                    queue.error = Some(error);
                    queue.jobs.clear();
                    queue.bytes = 0;
                    self.abandon();
                }
            }
            shared.changed.notify_all();
        }
        drop(queue);
        self.abandon();
    }

    fn run(&mut self, job: Job) -> Result<Done> {
        let (mut committed, mut spare) = (false, None);
        match job {
            Job::Token(line) => self.tokens.push(line)?,
            Job::Begin { file, bytes, len } => self.begin(&file, &bytes, len)?,
            Job::Write { at, len, apart, bytes } => {
                if let Some((file, path)) = &mut self.part {
                    for (piece, bytes) in bytes.chunks(len.max(1)).enumerate() {
                        let at = (at + piece * apart) as u64;
                        file.write_at(at, bytes).map_err(Error::io(&*path, "write"))?;
                    }
                }
                spare = Some(bytes);
            }
            Job::Step(record, bytes) => {
                self.begin(&record.file, &bytes, bytes.len())?;
                committed = self.run(Job::Commit(record))?.committed;
                spare = Some(bytes);
            }
            Job::Commit(record) => {
                if let Some((file, part)) = self.part.take() {
                    drop(file);
                    let path = self.folder.join(&record.file);
                    let named = self.storage.rename(&part, &path).map_err(Error::io(&path, "name"));
                    let line = named.and_then(|()| json_line(&record, &self.steps.path));
                    if let Err(error) = line.and_then(|line| self.steps.push(line)) {
                        // Without its line the file is no part of the dump, and only takes room.
                        let _ = self.storage.remove(&part).or_else(|_| self.storage.remove(&path));
                        return Err(error);
                    }
                    committed = true;
                }
            }
            Job::Name(file) => {
                if let Some((written, part)) = self.part.take() {
                    drop(written);
                    let path = self.folder.join(file);
                    if let Err(error) = self.storage.rename(&part, &path) {
                        // What failed is reported; a part left over would only take room.
                        let _ = self.storage.remove(&part);
                        return Err(Error::io(&path, "name")(error));
                    }
                }
            }
        }
        Ok(Done { spare, committed })
    }

    /// Begins a file.
    fn begin(&mut self, file: &str, bytes: &[u8], len: usize) -> Result<()> {
        self.abandon();
        let path = self.folder.join(file).with_extension("part");
        let file = self.storage.create(&path).map_err(Error::io(&path, "create"))?;
        let (file, path) = self.part.insert((file, path));
        file.write_at(0, bytes).map_err(Error::io(&*path, "write"))?;
        if len > bytes.len() {
            file.set_len(len as u64).map_err(Error::io(&*path, "make room in"))?;
        }
        Ok(())
    }

    /// Removes a file that is not whole.
    fn abandon(&mut self) {
        if let Some((file, path)) = self.part.take() {
            drop(file);
            // What ended the step is reported; a part left over would only take room.
            let _ = self.storage.remove(&path);
        }
    }
}

struct Done {
    spare: Option<Buffer>,
    committed: bool,
}

/// A value as a line of JSON.
pub(super) fn json_line(value: &impl serde::Serialize, path: &Path) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value).map_err(|error| Error::io(path, "write")(error.into()))?;
    line.push(b'\n');
    Ok(line)
}

/// A file of JSON lines; each goes out in one write, so that a kill tears at most the last.
struct Lines {
    path: PathBuf,
    file: Box<dyn Stored>,
    /// Bytes of whole lines.
    len: u64,
}

impl Lines {
    fn create(storage: &mut impl Storage, path: PathBuf) -> Result<Lines> {
        let file = storage.create(&path).map_err(Error::io(&path, "create"))?;
        Ok(Lines { path, file, len: 0 })
    }

    fn push(&mut self, line: Vec<u8>) -> Result<()> {
        if let Err(error) = self.file.write_at(self.len, &line) {
            // What was written of the line goes. If this fails as well, a reader ignores the torn line.
            let _ = self.file.set_len(self.len);
            return Err(Error::io(&self.path, "write")(error));
        }
        self.len += line.len() as u64;
        Ok(())
    }
}
