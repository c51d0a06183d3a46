import { copyParams } from '../sql/copied-params.ts';
import type { QueryResult, RunResult, SqlParams, SqlValue } from '../types.ts';
import type { Writer } from './writer.ts';

/** What a method of the write pool does with its statement. */
export type StatementRun<T> = (writer: Writer, sql: string, params: SqlParams | undefined) => T;

/** A statement that runs later. It writes what was passed, whatever the caller does with its values meanwhile. */
export function statementForLater<T>(
  act: StatementRun<T>,
  sql: string,
  params: SqlParams | undefined,
): (writer: Writer) => T {
  const copied = copyParams(params);
  return (writer) => act(writer, sql, copied);
}

export function runOn(writer: Writer, sql: string, params: SqlParams | undefined): RunResult {
  return writer.run(sql, params);
}

export function allOn(writer: Writer, sql: string, params: SqlParams | undefined): unknown[] {
  return writer.all(sql, params);
}

export function firstOn(writer: Writer, sql: string, params: SqlParams | undefined): unknown {
  return writer.get(sql, params);
}

export function valuesOn(writer: Writer, sql: string, params: SqlParams | undefined): SqlValue[][] {
  return writer.values(sql, params) as SqlValue[][];
}

export function executeOn(writer: Writer, sql: string, params: SqlParams | undefined): QueryResult<unknown> {
  return writer.execute(sql, params);
}
