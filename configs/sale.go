package configs

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"os"

	"flashgate/sale"
)

// SaleFiles holds the example sales, sales/*.yaml, so that the demo needs no checkout.
//
//go:embed sales/*.yaml
var SaleFiles embed.FS

// DecodeSaleJSON reads a sale and checks it with sale.Config.Validate; what the config switches on
// that is not built is the caller's to ask. The error is an *Error. The size of b is the caller's to
// limit.
func DecodeSaleJSON(b []byte) (sale.Config, error) {
	var c sale.Config
	if err := decodeJSON(b, &c); err != nil {
		return sale.Config{}, err
	}
	if err := newError(c.Validate()); err != nil {
		return sale.Config{}, err
	}
	return c, nil
}

// DecodeSaleYAML reads a sale of at most MaxFileBytes as DecodeSaleJSON does. The error is an *Error
// whose problems carry name and line.
func DecodeSaleYAML(name string, b []byte) (sale.Config, error) {
	b, lines, err := yamlToJSON(b)
	if err != nil {
		return sale.Config{}, locate(err, name, nil)
	}
	c, err := DecodeSaleJSON(b)
	return c, locate(err, name, lines)
}

// DecodeYAML reads a document of another of our schemas, of at most MaxFileBytes, into v as strictly as a
// sale. The error is an *Error whose problems carry name and line.
func DecodeYAML(name string, b []byte, v interface{ Validate() []sale.FieldError }) error {
	b, lines, err := yamlToJSON(b)
	if err != nil {
		return locate(err, name, nil)
	}
	if err := decodeJSON(b, v); err != nil {
		return locate(err, name, lines)
	}
	return locate(newError(v.Validate()), name, lines)
}

// LoadYAML reads a file as DecodeYAML does.
func LoadYAML(path string, v interface{ Validate() []sale.FieldError }) error {
	b, err := readFile(path)
	if err != nil {
		return err
	}
	return DecodeYAML(path, b, v)
}

// LoadSale reads a sale file. What is wrong with its content is an *Error.
func LoadSale(path string) (sale.Config, error) {
	b, err := readFile(path)
	if err != nil {
		return sale.Config{}, err
	}
	return DecodeSaleYAML(path, b)
}

// readFile reads a file and no more of it than yamlToJSON needs to refuse it.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}
