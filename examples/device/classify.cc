// Runs a .tflite file of a bundle on samples from stdin, without Python; prints the outputs.
//
//   g++ -std=c++17 -O2 classify.cc -o classify -L"$LITERT" -lLiteRt -Wl,-rpath,"$LITERT"
//   ./classify model.edge/model.float32.tflite < samples.txt
//
// A sample is a list of numbers in row-major order (step by step), separated by white space. For each
// sample, one line per output is printed: its name and its numbers. All tensors must be float32, as
// in all schemes unless the model was converted with --integer-io.

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "litert.h"

namespace {

void Check(LiteRtStatus status, const char* what) {
  if (status == 0) return;
  std::fprintf(stderr, "%s failed: LiteRT status %d\n", what, status);
  std::exit(5);
}

struct Tensor {
  std::string name;
  LiteRtTensorBuffer buffer = nullptr;
  size_t count = 0;  // of float32 numbers
};

// Allocates an input or output buffer that meets the requirements of the compiled model.
Tensor MakeTensor(LiteRtEnvironment environment, const char* name, LiteRtTensor tensor,
                  LiteRtTensorBufferRequirements requirements) {
  Tensor result;
  result.name = name;
  LiteRtRankedTensorType type;
  Check(LiteRtGetRankedTensorType(tensor, &type), "reading a tensor's type");
  Check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, requirements,
                                                        &result.buffer),
        "allocating a tensor");
  size_t bytes = 0;
  Check(LiteRtGetTensorBufferPackedSize(result.buffer, &bytes), "measuring a tensor");
  result.count = bytes / sizeof(float);
  return result;
}

// Returns false at the end of the samples.
bool Read(const Tensor& tensor) {
  void* memory = nullptr;
  Check(LiteRtLockTensorBuffer(tensor.buffer, &memory, kLiteRtTensorBufferLockModeWrite),
        "writing an input");
  size_t read = 0;
  while (read < tensor.count && std::cin >> static_cast<float*>(memory)[read]) ++read;
  Check(LiteRtUnlockTensorBuffer(tensor.buffer), "writing an input");
  if (read == tensor.count) return true;
  if (read != 0 || !std::cin.eof()) {
    std::fprintf(stderr, "%s has %zu numbers, but %zu were read\n", tensor.name.c_str(), tensor.count,
                 read);
    std::exit(2);
  }
  return false;
}

void Write(const Tensor& tensor) {
  void* memory = nullptr;
  Check(LiteRtLockTensorBuffer(tensor.buffer, &memory, kLiteRtTensorBufferLockModeRead),
        "reading an output");
  std::printf("%s", tensor.name.c_str());
  for (size_t k = 0; k < tensor.count; ++k)
    std::printf(" %.9g", static_cast<const float*>(memory)[k]);
  std::printf("\n");
  Check(LiteRtUnlockTensorBuffer(tensor.buffer), "reading an output");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s MODEL.tflite < samples\n", argv[0]);
    return 2;
  }
  LiteRtEnvironment environment = nullptr;
  LiteRtModel model = nullptr;
  LiteRtOptions options = nullptr;
  LiteRtCompiledModel compiled = nullptr;
  LiteRtSignature signature = nullptr;
  Check(LiteRtCreateEnvironment(0, nullptr, &environment), "starting LiteRT");
  Check(LiteRtCreateModelFromFile(environment, argv[1], &model), "loading the model");
  Check(LiteRtCreateOptions(&options), "creating options");
  Check(LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu), "selecting the CPU");
  Check(LiteRtCreateCompiledModel(environment, model, options, &compiled), "compiling the model");
  Check(LiteRtGetModelSignature(model, 0, &signature), "reading the signature");

  std::vector<Tensor> inputs, outputs;
  LiteRtParamIndex count = 0;
  Check(LiteRtGetNumSignatureInputs(signature, &count), "counting inputs");
  for (LiteRtParamIndex k = 0; k < count; ++k) {
    const char* name = nullptr;
    LiteRtTensor tensor = nullptr;
    LiteRtTensorBufferRequirements requirements = nullptr;
    Check(LiteRtGetSignatureInputName(signature, k, &name), "reading an input's name");
    Check(LiteRtGetSignatureInputTensorByIndex(signature, k, &tensor), "reading an input");
    Check(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, k, &requirements),
          "reading an input's requirements");
    inputs.push_back(MakeTensor(environment, name, tensor, requirements));
  }
  Check(LiteRtGetNumSignatureOutputs(signature, &count), "counting outputs");
  for (LiteRtParamIndex k = 0; k < count; ++k) {
    const char* name = nullptr;
    LiteRtTensor tensor = nullptr;
    LiteRtTensorBufferRequirements requirements = nullptr;
    Check(LiteRtGetSignatureOutputName(signature, k, &name), "reading an output's name");
    Check(LiteRtGetSignatureOutputTensorByIndex(signature, k, &tensor), "reading an output");
    Check(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, k, &requirements),
          "reading an output's requirements");
    outputs.push_back(MakeTensor(environment, name, tensor, requirements));
  }

  std::vector<LiteRtTensorBuffer> in, out;
  for (const Tensor& tensor : inputs) in.push_back(tensor.buffer);
  for (const Tensor& tensor : outputs) out.push_back(tensor.buffer);
  while (true) {
    bool more = true;
    for (const Tensor& tensor : inputs) more = more && Read(tensor);
    if (!more) break;
    Check(LiteRtRunCompiledModel(compiled, 0, in.size(), in.data(), out.size(), out.data()),
          "running the model");
    for (const Tensor& tensor : outputs) Write(tensor);
    std::fflush(stdout);
  }

  for (LiteRtTensorBuffer buffer : in) LiteRtDestroyTensorBuffer(buffer);
  for (LiteRtTensorBuffer buffer : out) LiteRtDestroyTensorBuffer(buffer);
  LiteRtDestroyCompiledModel(compiled);
  LiteRtDestroyOptions(options);
  LiteRtDestroyModel(model);
  LiteRtDestroyEnvironment(environment);
}
