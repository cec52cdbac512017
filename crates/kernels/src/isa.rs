//! Which instruction set the kernels run on: detected, forced by the environment, or forced for a scope.

use std::cell::Cell;
use std::sync::OnceLock;

/// The instruction-set paths there are. Crate-private: an [`Isa`] of a kind exists only where the CPU has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

/// An instruction-set path that this CPU can run.
///
/// A value exists only for a path that was detected, which is what makes the kernels safe to call. Results are bit
/// for bit the same within one path, and may differ between paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(Kind);

thread_local! {
    static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
}

impl Isa {
    /// The path that needs nothing of the CPU.
    pub fn portable() -> Self {
        Self(Kind::Portable)
    }

    /// Every path this CPU can run, the plainest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut paths = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                paths.push(Self(Kind::Avx2));
            }
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            if avx512 {
                paths.push(Self(Kind::Avx512));
                if is_x86_feature_detected!("avx512bf16") {
                    paths.push(Self(Kind::Avx512Bf16));
                }
            }
        }
        paths
    }

    /// The path in use on this thread: that of the innermost [`Isa::scope`], else the one named by `PELLUCID_ISA`
    /// (`portable`, `avx2` or `avx512`; read once), else the best this CPU has. A name that is unknown or that this CPU
    /// cannot run is ignored with a line on standard error.
    pub fn current() -> Self {
        FORCED.get().unwrap_or_else(|| {
            static CHOSEN: OnceLock<Isa> = OnceLock::new();
            *CHOSEN.get_or_init(|| choose(std::env::var("PELLUCID_ISA").ok().as_deref()))
        })
    }

    /// Runs `body` with this path in use on this thread (and on the pool's threads, for work started in `body`).
    pub fn scope<R>(self, body: impl FnOnce() -> R) -> R {
        struct Restore(Option<Isa>);
        impl Drop for Restore {
            fn drop(&mut self) {
                FORCED.set(self.0);
            }
        }
        let _restore = Restore(FORCED.replace(Some(self)));
        body()
    }

    /// The path's name: `portable`, `avx2`, `avx512` or `avx512-bf16` (AVX-512 with the bf16 dot product). A result
    /// is reproducible on a machine whose path has the same name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16 => "avx512-bf16",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

/// The best path that the request (the value of `PELLUCID_ISA`) allows.
fn choose(request: Option<&str>) -> Isa {
    let available = Isa::available();
    let best = available.last().copied().unwrap_or(Isa::portable());
    match request {
        None | Some("") => best,
        // "avx512" means the AVX-512 family, the bf16 dot product included where there is one.
        Some(name) => match available.iter().rev().find(|isa| isa.name().split('-').next() == Some(name)) {
            Some(isa) => *isa,
            None => {
                eprintln!("PELLUCID_ISA={name}: not a path this CPU can run; using {}", best.name());
                best
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_forces_the_path_and_restores_it_even_after_a_panic() {
        let before = Isa::current();
        let caught = std::panic::catch_unwind(|| {
            Isa::portable().scope(|| {
                assert_eq!(Isa::current().name(), "portable");
                panic!("leave");
            })
        });
        assert!(caught.is_err());
        assert_eq!(Isa::current(), before);
    }

    #[test]
    fn the_environment_variable_picks_a_path_by_family() {
        assert_eq!(choose(Some("portable")).name(), "portable");
        let best = choose(None);
        assert_eq!(choose(Some("no such path")), best);
        assert_eq!(choose(Some(best.name().split('-').next().unwrap())), best);
    }
}
