// Package configs reads what people write: sale files and the configuration of the server. It owns
// YAML, strict JSON and the environment.
//
// sale.go decodes a sale from YAML or JSON, which is one schema: yaml.go turns YAML into JSON and
// remembers the lines, strict.go decodes JSON and says what is allowed, problem.go is the error that
// names file, line, field and rule. config.go is the server's configuration with its defaults and
// ranges, load.go reads it from flashgate.yaml and FLASHGATE_* (env.go), validate.go checks it,
// and redis.go reads the URL of a Redis.
package configs
