package configs

import "errors"

// source is where a field got its value.
type source struct {
	name string
	line int
}

// sources maps the JSON pointer of a field to the last source that set it.
type sources map[string]source

// Load returns the defaults, changed by the YAML file at path (none when it is empty) and then by the
// FLASHGATE_* variables of environ, which is os.Environ(): FLASHGATE_GATEWAY_BATCH_MAX sets
// gateway.batch_max. Flags are the caller's to put on top, followed by Config.Validate; Load itself
// checks each field alone. The error is an *Error, or one of reading the file.
func Load(path string, environ []string) (Config, error) {
	c, from := Default(), sources{}
	if path != "" {
		if err := applyFile(&c, path, from); err != nil {
			return Config{}, err
		}
	}
	if err := applyEnv(&c, environ, from); err != nil {
		return Config{}, err
	}
	var e *Error
	if errors.As(newError(c.checkFields()), &e) {
		for i, p := range e.Problems {
			e.Problems[i].Source, e.Problems[i].Line = from[p.Pointer].name, from[p.Pointer].line
		}
		return Config{}, e
	}
	return c, nil
}

func applyFile(c *Config, path string, from sources) error {
	b, err := readFile(path)
	if err != nil {
		return err
	}
	b, lines, err := yamlToJSON(b)
	if err != nil {
		return locate(err, path, nil)
	}
	if err := decodeJSON(b, c); err != nil {
		return locate(err, path, lines)
	}
	for at, line := range lines {
		from[at] = source{path, line}
	}
	return nil
}
