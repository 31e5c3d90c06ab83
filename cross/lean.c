// Linked into programs for routers, where it stands in for parts of zig's libraries that are large and of no use in them.
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>

// A panic asks for a backtrace, and the standard library knows how to clean up behind an exception. These programs have no tables to
// walk the stack by and end at a panic, so nothing of it ever works: what would look for the tables is 30 KiB of code on MIPS. Weak:
// where the linker takes zig's library all the same, that one counts.
#define NOTHING(name) __attribute__((weak)) unsigned long name(void) { return 0; }
NOTHING(_Unwind_DeleteException)
NOTHING(_Unwind_FindEnclosingFunction)
NOTHING(_Unwind_GetCFA)
NOTHING(_Unwind_GetDataRelBase)
NOTHING(_Unwind_GetGR)
NOTHING(_Unwind_GetIP)
NOTHING(_Unwind_GetIPInfo)
NOTHING(_Unwind_GetLanguageSpecificData)
NOTHING(_Unwind_GetRegionStart)
NOTHING(_Unwind_GetTextRelBase)
NOTHING(_Unwind_SetGR)
NOTHING(_Unwind_SetIP)

enum { END_OF_STACK = 5, FAILURE = 9 };
#define FAILS(name, code) __attribute__((weak)) int name(void) { return code; }
FAILS(_Unwind_Backtrace, END_OF_STACK)
FAILS(_Unwind_RaiseException, FAILURE)
__attribute__((weak, noreturn)) void _Unwind_Resume(void) { abort(); }
#ifdef __arm__
FAILS(_Unwind_VRS_Get, FAILURE)
FAILS(_Unwind_VRS_Set, FAILURE)
FAILS(__aeabi_unwind_cpp_pr0, FAILURE)
FAILS(__aeabi_unwind_cpp_pr1, FAILURE)
FAILS(__aeabi_unwind_cpp_pr2, FAILURE)
FAILS(__gnu_unwind_frame, FAILURE)
#endif

// Threads name themselves. musl's own names other threads, too, by a file whose path it prints: the only use of `printf` in the
// program.
int pthread_setname_np(pthread_t thread, const char *name) {
  if (thread != pthread_self()) return ENOSYS;
  return prctl(PR_SET_NAME, (unsigned long)name, 0UL, 0UL, 0UL) ? errno : 0;
}
