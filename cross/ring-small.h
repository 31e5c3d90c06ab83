// Read before every C file of ring, on processors for which it would bring its large tables (0.17 MiB that no packer makes smaller).
// OPENSSL_SMALL leaves them out and takes the code that every other processor gets; ring sets it there by itself. That code
// has no function of its own for multiples that are no secret, so the one for secrets, which costs more time, stands in for it.
#if defined(OPENSSL_SMALL) && !defined(__ASSEMBLER__)
#include <ring-core/base.h>

void p256_point_mul_base(uint64_t r[3][4], const uint64_t scalar[4]);
void p256_point_mul_base_vartime(uint64_t r[3][4], const uint64_t scalar[4]);

// Every file has it, and the linker keeps one.
__attribute__((weak)) void p256_point_mul_base_vartime(uint64_t r[3][4], const uint64_t scalar[4]) {
  p256_point_mul_base(r, scalar);
}
#endif
