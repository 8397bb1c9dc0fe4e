/* A library in the place of NVIDIA's management library, for tests: it answers the calls of confidential computing
 * as it was compiled to, and with the report and certificates of two files. The declarations follow NVIDIA's
 * documentation of NVML, so that a test that loads this shows that the Rust side agrees with it.
 *
 * Compiled by the tests: cc -shared -fPIC -D... nvml.c -o libnvidia-ml.so
 *   GPUS, CONFIDENTIAL, DEVELOPER_TOOLS, MULTI_GPU, ENVIRONMENT, READY  what the driver says
 *   REPORT_SIZE, CHAIN_SIZE  lengths that it claims, other than the true ones
 *   REPORT_ERROR             what the report's call returns
 *   NO_SETTINGS              a driver that does not have that call yet
 *   FOLDER                   where `report`, `chain` lie, and where a file `lost` takes every GPU away
 */
#include <stdio.h>
#include <string.h>

#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define NOT_FOUND 6
#define GPU_IS_LOST 15

#ifndef GPUS
#define GPUS 2
#endif
#ifndef CONFIDENTIAL
#define CONFIDENTIAL 1
#endif
#ifndef DEVELOPER_TOOLS
#define DEVELOPER_TOOLS 0
#endif
#ifndef MULTI_GPU
#define MULTI_GPU 0
#endif
#ifndef ENVIRONMENT
#define ENVIRONMENT 2
#endif
#ifndef READY
#define READY 1
#endif
#ifndef REPORT_ERROR
#define REPORT_ERROR SUCCESS
#endif

typedef struct {
  unsigned int environment, confidential, developer_tools;
} State;

typedef struct {
  unsigned int version, environment, confidential, developer_tools, multi_gpu;
} Settings;

typedef struct {
  unsigned int chain_size, attestation_chain_size;
  unsigned char chain[0x1000], attestation_chain[0x1400];
} Certificate;

typedef struct {
  unsigned int cec_present, size, cec_size;
  unsigned char nonce[0x20], report[0x2000], cec_report[0x1000];
} Report;

/* A device's handle points here. Their order is not that of their identifiers. */
static const char *const identifiers[] = {"GPU-b", "GPU-a", "GPU-c", "GPU-d", "GPU-e", "GPU-f", "GPU-g", "GPU-h", "GPU-i"};
typedef const char *const *Device;

static int lost(void) {
  FILE *file = fopen(FOLDER "/lost", "rb");
  if (file) fclose(file);
  return file != NULL;
}

static size_t load(const char *path, unsigned char *into, size_t limit) {
  FILE *file = fopen(path, "rb");
  size_t size = file ? fread(into, 1, limit, file) : 0;
  if (file) fclose(file);
  return size;
}

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
  snprintf(version, length, "550.90.07");
  return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
  *count = GPUS;
  return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device *device) {
  if (index >= GPUS) return INVALID_ARGUMENT;
  *device = &identifiers[index];
  return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device *device) {
  if (lost()) return NOT_FOUND;
  for (unsigned int index = 0; index < GPUS; index++)
    if (!strcmp(identifiers[index], uuid)) return nvmlDeviceGetHandleByIndex_v2(index, device);
  return NOT_FOUND;
}

int nvmlDeviceGetUUID(Device device, char *uuid, unsigned int length) {
  if (lost()) return GPU_IS_LOST;
  snprintf(uuid, length, "%s", *device);
  return SUCCESS;
}

int nvmlDeviceGetName(Device device, char *name, unsigned int length) {
  (void)device;
  snprintf(name, length, "NOT A GPU");
  return SUCCESS;
}

int nvmlSystemGetConfComputeState(State *state) {
  *state = (State){ENVIRONMENT, CONFIDENTIAL, DEVELOPER_TOOLS};
  return SUCCESS;
}

#ifndef NO_SETTINGS
int nvmlSystemGetConfComputeSettings(Settings *settings) {
  /* NVML_STRUCT_VERSION(SystemConfComputeSettings, 1) */
  if (settings->version != 0x1000014) return 25;
  *settings = (Settings){settings->version, ENVIRONMENT, CONFIDENTIAL, DEVELOPER_TOOLS, MULTI_GPU};
  return SUCCESS;
}
#endif

int nvmlSystemGetConfComputeGpusReadyState(unsigned int *ready) {
  *ready = READY;
  return SUCCESS;
}

int nvmlDeviceGetConfComputeGpuAttestationReport(Device device, Report *report) {
  (void)device;
  if (REPORT_ERROR != SUCCESS) return REPORT_ERROR;
  report->size = load(FOLDER "/report", report->report, sizeof report->report);
  /* Where the request that the report begins with has its nonce. */
  memcpy(report->report + 4, report->nonce, sizeof report->nonce);
#ifdef REPORT_SIZE
  report->size = REPORT_SIZE;
#endif
  return SUCCESS;
}

int nvmlDeviceGetConfComputeGpuCertificate(Device device, Certificate *certificate) {
  (void)device;
  certificate->attestation_chain_size =
      load(FOLDER "/chain", certificate->attestation_chain, sizeof certificate->attestation_chain);
#ifdef CHAIN_SIZE
  certificate->attestation_chain_size = CHAIN_SIZE;
#endif
  return SUCCESS;
}
