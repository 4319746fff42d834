// What the twins for ARMv8.2 with the dot product share.
#pragma once
#include <arm_neon.h>

// On each function rather than on the file, so that no inline function of a header is compiled for this processor alone.
#if defined(__clang__)
#define RUYICAM_DOTPROD __attribute__((target("dotprod")))
#else
#define RUYICAM_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
