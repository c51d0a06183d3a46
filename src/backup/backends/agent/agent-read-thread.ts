/** The thread that reads a store through an agent for a thread that waits. It has a connection of its own. */
import { serveReads } from '../remote/serve-reads.ts';
import { agentPlace } from './agent-connect.ts';
import { AgentFiles } from './agent-files.ts';

serveReads(({ address }) => new AgentFiles(agentPlace(address), true));
