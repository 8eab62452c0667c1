#include "cli/app.h"

int main(int argc, char** argv) {
  return dspark::cli::run_command_line(argc, argv);
}
