/* An engine in C11. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* Null, or what failed. */
const char* run_a_c11_engine(void);

#ifdef __cplusplus
}
#endif
