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

    /// What `PELLUCID_ISA` asks for: a path by its name, or `avx512` for the best of that family; left out or empty, the best this
    /// CPU has.
    ///
    /// # Errors
    /// Where it is no path that this CPU can run: what is wrong, and what it can run.
    pub fn asked_for() -> Result<Self, String> {
        choose(std::env::var("PELLUCID_ISA").ok().as_deref())
    }

    /// The path in use on this thread: that of the innermost [`Isa::scope`], else [`Isa::asked_for`] (read once). Where that is
    /// an error which nobody has looked at, it is the best this CPU has, and a line on standard error says so.
    pub fn current() -> Self {
        FORCED.get().unwrap_or_else(|| {
            static CHOSEN: OnceLock<Isa> = OnceLock::new();
            *CHOSEN.get_or_init(|| {
                Isa::asked_for().unwrap_or_else(|message| {
                    eprintln!("{message}; this process uses {}", best().name());
                    best()
                })
            })
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

fn best() -> Isa {
    Isa::available().last().copied().unwrap_or(Isa::portable())
}

/// The best path that the request (the value of `PELLUCID_ISA`) allows.
fn choose(request: Option<&str>) -> Result<Isa, String> {
    let Some(name) = request.filter(|name| !name.is_empty()) else { return Ok(best()) };
    // "avx512" means the AVX-512 family, the bf16 dot product included where there is one.
    let is_asked_for = |isa: &&Isa| isa.name() == name || isa.name().split('-').next() == Some(name);
    let available = Isa::available();
    available.iter().rev().find(is_asked_for).copied().ok_or_else(|| {
        let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
        format!("PELLUCID_ISA={name}: not a path this CPU can run\n  hint: leave it out for the best, or name one of {}", names.join(", "))
    })
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
        assert_eq!(choose(Some("portable")).unwrap().name(), "portable");
        assert_eq!(choose(None), Ok(best()));
        assert_eq!(choose(Some("")), Ok(best()));
        assert!(choose(Some("no such path")).unwrap_err().contains("one of portable"));
        assert_eq!(choose(Some(best().name().split('-').next().unwrap())), Ok(best()));
        // Every name that a result bears can be asked for.
        for isa in Isa::available() {
            let family = isa.name().split('-').count() == 1 && best().name().starts_with(isa.name());
            assert_eq!(choose(Some(isa.name())), Ok(if family { best() } else { isa }));
        }
    }
}
