//! The process's memory, as the operating system counts it.

/// The most memory that this process held at once (since [`reset_peak`]), in bytes; `None` where
/// the system does not tell.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Starts counting the peak anew from what is held now; does nothing where the system cannot.
pub fn reset_peak() {
    // "5" resets the high-water mark (Linux, proc(5)); without it the peak also counts what came before.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_grows_with_what_is_held() {
        let before = super::peak().unwrap();
        let held = vec![1u8; 64 << 20];
        assert!(held.iter().map(|byte| u64::from(*byte)).sum::<u64>() == 64 << 20);
        assert!(super::peak().unwrap() >= before.max(64 << 20));
    }
}
