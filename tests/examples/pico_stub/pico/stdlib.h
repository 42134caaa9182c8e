#pragma once

inline void stdio_init_all() {}
