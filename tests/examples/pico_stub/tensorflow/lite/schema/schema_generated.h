#pragma once

#include <cstdint>
#include <cstring>

namespace tflite {

struct Model {
  const unsigned char* data;
};

// Null if the bytes have no identifier or are not aligned.
inline const Model* GetModel(const unsigned char* data) {
  static Model model;
  model.data = data;
  const bool aligned = reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
  return aligned && std::memcmp(data + 4, "TFL3", 4) == 0 ? &model : nullptr;
}

}  // namespace tflite
